"""Federated analytics: aggregates of one column over many clients, without a model.

A query is a few *passes*. In each, every client gets the same `Ask` and returns an `Answer`: a few sums and counts.
`passes` decides what to ask next and merges what came back. Everything is merged in exact arithmetic (integers, and
rationals for the sums), so that the order of the answers changes no bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from protos import limits

LARGEST = 1e150
"""Sums and bounds beyond this are refused: their squares would leave float64."""
GRID_BINS = 256
"""Bins of the first pass for quantiles."""
ZOOM_BINS = 64
"""Bins into which a later pass cuts the bin that holds a quantile, at most."""
MAX_QUANTILES = 20
"""With `ZOOM_BINS`, what keeps a pass below `limits.MAX_EDGES`."""
MAX_PASSES = 8
FEWEST_CLIENTS = 2
"""The result of a single client would be its own."""

LabelText = Annotated[str, Field(max_length=limits.MAX_NAME_LENGTH)]


class Statistic(StrEnum):
    COUNT = "count"
    SUM = "sum"
    MEAN = "mean"
    STD = "std"
    MIN = "min"
    MAX = "max"
    HISTOGRAM = "histogram"
    QUANTILES = "quantiles"


MOMENTS = frozenset({Statistic.SUM, Statistic.MEAN, Statistic.STD})
EXTREMES = frozenset({Statistic.MIN, Statistic.MAX})
BINNED = frozenset({Statistic.HISTOGRAM, Statistic.QUANTILES})


class QueryConfig(BaseModel):
    """What is asked of one column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Annotated[str, Field(min_length=1, max_length=limits.MAX_COLUMN_NAME_LENGTH)]
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1, max_length=len(Statistic))]
    bins: int = Field(default=20, ge=1, le=1_000, description="Bins of the histogram, all of one width.")
    low: FiniteFloat | None = Field(
        default=None,
        ge=-LARGEST,
        le=LARGEST,
        description="Where histogram and quantiles begin; else the clients' range.",
    )
    high: FiniteFloat | None = Field(default=None, ge=-LARGEST, le=LARGEST)
    quantiles: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=MAX_QUANTILES)
    ] = (0.25, 0.5, 0.75)
    tolerance: float = Field(
        default=1e-3, ge=1e-4, le=0.1, description="Largest error of a quantile, as a share of the range."
    )
    min_clients: int = Field(
        default=FEWEST_CLIENTS, ge=FEWEST_CLIENTS, le=100_000, description="Fewer answers than this give no result."
    )
    labels: dict[LabelText, LabelText] = Field(default_factory=dict, max_length=16)
    deadline_seconds: float = Field(default=60.0, ge=1, le=3_600, description="Of each pass.")

    @field_validator("statistics", "quantiles")
    @classmethod
    def _in_order_and_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        order: Any = list(Statistic).index if isinstance(value[0], Statistic) else None
        return tuple(sorted(set(value), key=order))

    @model_validator(mode="after")
    def _range(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high are given together or not at all")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError("low must be below high")
        return self

    def wants(self, statistics: frozenset[Statistic]) -> bool:
        return not statistics.isdisjoint(self.statistics)


@dataclass(frozen=True, slots=True)
class Ask:
    """What one pass asks of each client. `edges`: ascending; empty for no counts."""

    moments: bool = False
    extremes: bool = False
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one client says. `counts`: below the first edge, in each bin, above the last edge."""

    count: int
    sum: float = 0.0
    squared_deviations: float = 0.0
    low: float = 0.0
    high: float = 0.0
    counts: tuple[int, ...] = ()


class BadAnswer(Exception):
    """The client's answer can't be; the text says why. All the federation reads it, so none of the answer's figures is in it."""


class NoResult(Exception):
    """The answers give no result; the text is for the operator."""


def check(ask: Ask, answer: Answer) -> None:
    """Raises `BadAnswer` for an answer that no column could give, whatever its sender meant by it."""
    if not 1 <= answer.count <= limits.MAX_NUM_EXAMPLES:
        raise BadAnswer(f"Its number of values is not from 1 to {limits.MAX_NUM_EXAMPLES:,}.")
    if ask.moments:
        _check_moments(answer)
    if ask.extremes:
        _check_size("low", answer.low, LARGEST)
        _check_size("high", answer.high, LARGEST)
        if answer.low > answer.high:
            raise BadAnswer("Its range ends before it begins.")
    if ask.edges:
        _check_counts(ask, answer)


def _check_moments(answer: Answer) -> None:
    _check_size("sum", answer.sum, LARGEST)
    _check_size("sum of squared deviations", answer.squared_deviations, LARGEST**2)
    if answer.squared_deviations < 0:
        raise BadAnswer("Its sum of squared deviations is negative.")


def _check_counts(ask: Ask, answer: Answer) -> None:
    if len(answer.counts) != len(ask.edges) + 1:
        raise BadAnswer(f"It has not the {len(ask.edges) + 1:,} counts that were asked for.")
    if min(answer.counts) < 0:
        raise BadAnswer("One of its counts is negative.")
    if sum(answer.counts) != answer.count:
        raise BadAnswer("Its counts don't add up to its number of values.")


def _check_size(name: str, value: float, largest: float) -> None:
    if not math.isfinite(value):
        raise BadAnswer(f"Its {name} is not a finite number.")
    if abs(value) > largest:
        raise BadAnswer(f"Its {name} is beyond ±{largest:g}.")


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` values lie in [edges[i], edges[i + 1]), the last bin closed; the others are `below` and `above`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int

    @classmethod
    def merged(cls, edges: tuple[float, ...], answers: Sequence[Answer]) -> Histogram:
        counts = [sum(column) for column in zip(*(answer.counts for answer in answers), strict=True)]
        return cls(edges, tuple(counts[1:-1]), counts[0], counts[-1])

    @property
    def total(self) -> int:
        return self.below + sum(self.counts) + self.above

    def bin_of(self, share: float) -> int:
        """The bin with the `share`-quantile: the smallest value that at least this share of all values doesn't exceed.

        -1 and `len(counts)` stand for below and above.
        """
        rank = math.ceil(Fraction(repr(share)) * self.total)  # 0.1 means a tenth, not the float beside it
        seen = self.below
        if rank <= seen:
            return -1
        for index, count in enumerate(self.counts):
            seen += count
            if rank <= seen:
                return index
        return len(self.counts)


@dataclass(frozen=True, slots=True)
class Quantile:
    """The true quantile of all values lies within `value` ± `error`. None: outside the range that was asked for."""

    share: float
    value: float | None
    error: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """The aggregate. `figures` has the scalar statistics that were asked for."""

    values: int
    figures: Mapping[str, int | float]
    histogram: Histogram | None
    quantiles: tuple[Quantile, ...]

    def to_json(self) -> dict[str, Any]:
        histogram = self.histogram
        return {
            "values": self.values,
            "figures": dict(self.figures),
            "histogram": histogram
            and {
                "edges": list(histogram.edges),
                "counts": list(histogram.counts),
                "below": histogram.below,
                "above": histogram.above,
            },
            "quantiles": [{"share": q.share, "value": q.value, "error": q.error} for q in self.quantiles],
        }


Passes = Generator[Ask, Sequence[Answer], Result]


def passes(config: QueryConfig) -> Passes:
    """Yields what to ask, is sent the checked answers (at least one, in any order), returns the result.

    Clients may fall away between passes: each pass is merged by itself. Raises `NoResult`.
    """
    needs_range = config.wants(BINNED) and config.low is None
    ask = Ask(moments=config.wants(MOMENTS), extremes=needs_range or config.wants(EXTREMES))
    answers = yield ask
    values = sum(answer.count for answer in answers)
    figures = _figures(config, answers)
    low, high = _range_for_bins(config, answers)
    histogram = None
    if Statistic.HISTOGRAM in config.statistics:
        edges = _even_edges(low, high, config.bins)
        histogram = Histogram.merged(edges, (yield Ask(edges=edges)))
    quantiles: tuple[Quantile, ...] = ()
    if Statistic.QUANTILES in config.statistics:
        quantiles = yield from _quantiles(config, low, high)
    return Result(values, figures, histogram, quantiles)


def _figures(config: QueryConfig, answers: Sequence[Answer]) -> dict[str, int | float]:
    """Sum, mean and standard deviation of all values together (divisor n), each rounded once.

    Squared deviations are merged by Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances", eq. 2.1 over all clients at once: the sum of squares less n·mean² would lose its digits.
    """
    count = sum(answer.count for answer in answers)
    total = sum((Fraction(answer.sum) for answer in answers), Fraction(0))
    mean = total / count
    spread = sum(
        (Fraction(a.squared_deviations) + a.count * (Fraction(a.sum) / a.count - mean) ** 2 for a in answers),
        Fraction(0),
    )
    known: dict[Statistic, int | float] = {
        Statistic.COUNT: count,
        Statistic.SUM: float(total),
        Statistic.MEAN: float(mean),
        Statistic.STD: math.sqrt(spread / count),
        Statistic.MIN: min(answer.low for answer in answers),
        Statistic.MAX: max(answer.high for answer in answers),
    }
    return {statistic.value: known[statistic] for statistic in config.statistics if statistic in known}


def _range_for_bins(config: QueryConfig, answers: Sequence[Answer]) -> tuple[float, float]:
    if config.low is not None and config.high is not None:
        return config.low, config.high
    low, high = min(answer.low for answer in answers), max(answer.high for answer in answers)
    if low < high:
        return low, high
    margin = max(0.5, abs(low) / 2)  # all values are the same
    return low - margin, high + margin


def _even_edges(low: float, high: float, bins: int) -> tuple[float, ...]:
    """Raises `NoResult` where float64 has no room for so many edges."""
    edges = (*(low + (high - low) * index / bins for index in range(bins)), high)
    if any(left >= right for left, right in pairwise(edges)):
        raise NoResult(f"There is no room for {bins:,} bins between {low:g} and {high:g}. Ask for fewer.")
    return edges


def _quantiles(config: QueryConfig, low: float, high: float) -> Generator[Ask, Sequence[Answer], tuple[Quantile, ...]]:
    """Zoom into the bins that hold a quantile until each is narrow enough, or float64 or the passes are used up."""
    widest = 2 * config.tolerance * (high - low)
    edges = _even_edges(low, high, GRID_BINS)
    for _ in range(MAX_PASSES):
        histogram = Histogram.merged(edges, (yield Ask(edges=edges)))
        held = {share: histogram.bin_of(share) for share in config.quantiles}
        finer = _zoomed(edges, set(held.values()), widest)
        if finer == edges:
            break
        edges = finer
    return tuple(_quantile(share, histogram.edges, index) for share, index in held.items())


def _zoomed(edges: tuple[float, ...], held: set[int], widest: float) -> tuple[float, ...]:
    """The edges of the held bins, those that are wider than `widest` cut up; bins between them in one piece."""
    finer = {edges[0], edges[-1]}
    wide = [index for index in held if 0 <= index < len(edges) - 1 and edges[index + 1] - edges[index] > widest]
    if not wide:
        return edges
    for index in held & set(range(len(edges) - 1)):
        left, right = edges[index], edges[index + 1]
        pieces = min(ZOOM_BINS, math.ceil((right - left) / widest)) if index in wide else 1
        finer |= {left + (right - left) * piece / pieces for piece in range(pieces)} | {right}
    return tuple(sorted(finer))


def _quantile(share: float, edges: tuple[float, ...], index: int) -> Quantile:
    if not 0 <= index < len(edges) - 1:
        return Quantile(share, None, None)
    left, right = edges[index], edges[index + 1]
    value = left + (right - left) / 2
    return Quantile(share, value, max(value - left, right - value))
