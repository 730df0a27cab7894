"""Runs side by side: their curves on common axes, what each has reached, and where their configurations differ."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.http import QueryDict

from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Federation
from fedui.runs.figures import MOST_TRUSTED_FIRST
from fedui.runs.models import Metric, Round, RoundStatus, Run
from fedui.runs.thinning import thinned
from fedui.web.figures import is_lower_better

FEWEST, MOST = 2, 8


class ComparisonRefused(DomainError):
    """What was asked for is no comparison."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(frozen=True, slots=True)
class Point:
    """The global model after a committed round."""

    round: int
    seconds: float
    """Since the run began."""
    bytes: int
    """Both ways, of all clients, up to this round; of abandoned attempts too."""
    value: float


@dataclass(slots=True)
class ComparedRun:
    run: Run
    curves: dict[str, list[Point]] = field(default_factory=dict)
    """By metric, from the most trusted source that has it."""
    sources: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    asked: int = 0
    lost: int = 0

    def best(self, metric: str) -> float | None:
        values = [point.value for point in self.curves.get(metric, ())]
        return _best(metric)(values) if values else None

    def reached(self, metric: str, target: float) -> Point | None:
        """Where the curve first is as good as `target`."""
        lower = is_lower_better(metric)
        points = self.curves.get(metric, ())
        return next((p for p in points if (p.value <= target if lower else p.value >= target)), None)


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One figure of every run. `kind` says how it reads: a metric's name, "round", "bytes", "seconds" or "share"."""

    label: str
    kind: str
    values: list[float | None]
    lower_is_better: bool = True

    @property
    def best(self) -> float | None:
        """What to mark; nothing where the runs don't differ."""
        known = [value for value in self.values if value is not None]
        if len(set(known)) < 2:
            return None
        return min(known) if self.lower_is_better else max(known)

    def deltas(self, base: int) -> list[float | None]:
        """The distance of each value from that of run `base` (an index); None for that run itself, and where one isn't known."""
        pinned = self.values[base]
        return [
            None if value is None or pinned is None or index == base else value - pinned
            for index, value in enumerate(self.values)
        ]


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting of every run, as text; None where a run's strategy has no such setting."""

    name: str
    values: list[str | None]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


@dataclass(frozen=True, slots=True)
class Comparison:
    runs: list[ComparedRun]
    metric: str
    """The one that `target` is about; empty where no run has any figures yet."""
    metrics: list[str]
    target: float | None
    base: int
    """Index of the run that the others are measured against."""

    def results(self) -> list[ResultRow]:
        return [*self._bests(), *self._efforts(), *self._totals()]

    def _bests(self) -> Iterator[ResultRow]:
        for name in self.metrics:
            lower = is_lower_better(name)
            label = f"{_words(name)}, {'lowest' if lower else 'best'}"
            yield ResultRow(label, name, [one.best(name) for one in self.runs], lower_is_better=lower)

    def _efforts(self) -> Iterator[ResultRow]:
        if self.target is None:
            return
        where = [one.reached(self.metric, self.target) for one in self.runs]
        yield ResultRow("Rounds to the target", "round", [p.round if p else None for p in where])
        yield ResultRow("Time to the target", "seconds", [p.seconds if p else None for p in where])
        yield ResultRow("Traffic to the target", "bytes", [p.bytes if p else None for p in where])

    def _totals(self) -> Iterator[ResultRow]:
        yield ResultRow("Time, total", "seconds", [one.run.duration_seconds for one in self.runs])
        yield ResultRow("Traffic, total", "bytes", [one.bytes for one in self.runs])
        yield ResultRow("Updates lost", "share", [one.lost / one.asked if one.asked else None for one in self.runs])

    def settings(self) -> list[SettingRow]:
        flat = [dict(_flattened(_configuration(one.run))) for one in self.runs]
        names = dict.fromkeys(name for settings in flat for name in settings)
        return [SettingRow(name, [settings.get(name) for settings in flat]) for name in names]


def asked(federation: Federation, query: QueryDict) -> Comparison:
    """The comparison that an address asks for: `runs`, and optionally `metric`, `target` and `base`. Raises `ComparisonRefused`."""
    ids = chosen_ids(query.getlist("runs"))
    base = chosen_ids([query.get("base", "")])
    target = _number(query.get("target", ""))
    return compare(federation, ids, metric=query.get("metric", ""), target=target, base=base[0] if base else None)


def _number(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise ComparisonRefused(f"A target is a number, not {text[:40]!r}.", hint="For example 0.85.") from error
    if not abs(value) < float("inf"):
        raise ComparisonRefused("A target is a finite number.", hint="For example 0.85.")
    return value


def chosen_ids(texts: Iterable[str]) -> list[int]:
    """Run numbers from the query parameters `runs`, each once, in their order: `runs=3,1` and `runs=3&runs=1` say the same."""
    words = [word for text in texts for word in text.split(",") if word.strip()]
    if not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", word) for word in words):
        raise ComparisonRefused("Runs are named by their numbers.", hint="For example ?runs=3,1.")
    return list(dict.fromkeys(int(word) for word in words))


def compare(
    federation: Federation,
    ids: Sequence[int],
    *,
    metric: str = "",
    target: float | None = None,
    base: int | None = None,
) -> Comparison:
    """Runs `ids` of `federation`, in that order. Without a `target`, it is what all runs with figures have reached.

    Raises `ComparisonRefused` for too few or too many runs, and for one that the federation doesn't have.
    """
    if not FEWEST <= len(ids) <= MOST:
        chosen = "1 run was chosen." if len(ids) == 1 else f"{len(ids)} runs were chosen."
        raise ComparisonRefused(chosen, hint=f"Choose {FEWEST} to {MOST} runs to compare.")
    found = federation.runs.select_related("strategy_version__strategy", "app").in_bulk(ids)
    if missing := [str(id_) for id_ in ids if id_ not in found]:
        raise ComparisonRefused(f"This federation has no run {', '.join(missing)}.", hint="Choose other runs.")
    runs = [ComparedRun(found[id_]) for id_ in ids]
    _measure(runs)
    names = sorted({name for one in runs for name in one.curves}, key=_interest)
    metric = metric if metric in names else next(iter(names), "")
    target = target if target is not None else _reached_by_all(runs, metric)
    return Comparison(runs, metric, names, target, ids.index(base) if base in ids else 0)


def _measure(runs: list[ComparedRun]) -> None:
    """Fill in curves and totals, with one query for the rounds of all runs and one for their metrics."""
    by_id = {one.run.pk: one for one in runs}
    ends: dict[int, dict[int, tuple[float, int]]] = {pk: {0: (0.0, 0)} for pk in by_id}
    for round_ in Round.objects.filter(run__in=by_id).with_totals().order_by("run", "number", "attempt"):
        one = by_id[round_.run_id]
        one.bytes += round_.bytes_up + round_.bytes_down
        if round_.status != RoundStatus.RUNNING:
            one.asked += round_.expected
            one.lost += round_.expected - round_.received
        if round_.committed_at and one.run.started_at:
            seconds = (round_.committed_at - one.run.started_at).total_seconds()
            ends[round_.run_id][round_.number] = (seconds, one.bytes)
    for (run_id, name, source), values in _values(by_id).items():
        one = by_id[run_id]
        if name not in one.curves:
            known = ends[run_id]
            one.curves[name] = thinned([Point(n, *known[n], value) for n, value in values if n in known], _value)
            one.sources[name] = source


def _values(runs: Iterable[int]) -> dict[tuple[int, str, str], list[tuple[int, float]]]:
    """By run, metric and source, the most trusted source first."""
    values: dict[tuple[int, str, str], list[tuple[int, float]]] = {}
    rows = Metric.objects.filter(run__in=runs).order_by("round_number")
    for run_id, name, source, number, value in rows.values_list("run", "name", "source", "round_number", "value"):
        values.setdefault((run_id, name, source), []).append((number, value))
    return dict(sorted(values.items(), key=lambda item: MOST_TRUSTED_FIRST.index(item[0][2])))


def _value(point: Point) -> float:
    return point.value


def _best(metric: str) -> Callable[[list[float]], float]:
    return min if is_lower_better(metric) else max


def _reached_by_all(runs: list[ComparedRun], metric: str) -> float | None:
    bests = [best for one in runs if (best := one.best(metric)) is not None]
    return (max if is_lower_better(metric) else min)(bests, default=None)


def _interest(name: str) -> tuple[bool, bool, str]:
    return name != "accuracy", name != "loss", name


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _configuration(run: Run) -> dict[str, Any]:
    version = run.strategy_version
    config = version.parsed.model_dump(mode="json", exclude={"schema_version"})
    ours = {"strategy": str(version), "app": str(run.app), "rounds": run.num_rounds, "seed": run.seed}
    return ours | config


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
