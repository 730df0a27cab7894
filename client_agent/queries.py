"""What an agent tells of a column: sums and counts of many values, and a range whose ends are rounded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np
from numpy.typing import NDArray

from client_agent.errors import BrokenApp, TaskRefused
from client_agent.sdk import App, Context
from protos import limits
from protos.fedui.v1 import task_pb2

DEFAULT_MIN_VALUES = 10
RANGE_DIGITS = 2
"""Significant digits to which a range is rounded outward: its ends are values of single records, and stay so if they have no more."""
NARROWEST_BIN = 1e-5
"""As a share of the column's range: counting in narrower bins would find single values out."""

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OpenColumns:
    """The columns that an app opens to queries, read anew for each, and the fewest values that may be told of together."""

    app: App
    context: Context
    names: tuple[str, ...]
    min_values: int

    @classmethod
    def of(cls, app: App, context: Context, min_values: int = DEFAULT_MIN_VALUES) -> OpenColumns:
        """Raises `BrokenApp` for columns that can't be read or offered."""
        try:
            names = tuple(_read(app, context))
        except BrokenApp:
            raise
        except Exception as error:  # the app's own code
            raise BrokenApp(f"App {app.name!r} can't read its columns: {type(error).__name__}: {error}") from error
        if len(names) > limits.MAX_COLUMNS:
            raise BrokenApp(
                f"App {app.name!r} offers {len(names):,} columns; at most {limits.MAX_COLUMNS} are allowed."
            )
        for name in names:
            if not 1 <= len(name) <= limits.MAX_COLUMN_NAME_LENGTH:
                raise BrokenApp(
                    f"A column's name has 1 to {limits.MAX_COLUMN_NAME_LENGTH} characters, unlike {name!r}."
                )
        return cls(app, context, names, min_values)

    def answer(self, query: task_pb2.ColumnQuery) -> task_pb2.ColumnAnswer:
        """Raises `TaskRefused` where the owner's policy has it so; whatever the app raises passes through."""
        if query.column not in self.names:
            raise TaskRefused(f"This agent's app {self.app.name} opens no column {query.column!r} to queries.")
        values = _present(_read(self.app, self.context)[query.column])
        if len(values) < self.min_values:
            raise TaskRefused(
                f"Column {query.column!r} has fewer than the {self.min_values} values of which this agent tells aggregates."
            )
        answer = task_pb2.ColumnAnswer(count=len(values))
        if query.moments:
            answer.sum = math.fsum(values)
            answer.squared_deviations = math.fsum((values - answer.sum / len(values)) ** 2)
        low, high = rounded_outward(values.min(), values.max())
        if query.extremes:
            answer.low, answer.high = low, high
        if query.edges:
            answer.counts.extend(_counts(values, _checked_edges(query.edges, high - low)))
        return answer


def rounded_outward(low: float, high: float) -> tuple[float, float]:
    """The range, its ends rounded away from the values to `RANGE_DIGITS` significant digits."""
    return _rounded(low, ROUND_FLOOR), _rounded(high, ROUND_CEILING)


def _rounded(value: float, rounding: str) -> float:
    exact = Decimal(float(value))
    if not exact:
        return 0.0
    return float(exact.quantize(Decimal((0, (1,), exact.adjusted() - RANGE_DIGITS + 1)), rounding))


def _read(app: App, context: Context) -> Mapping[str, NDArray[np.generic]]:
    return app.columns(context) if app.columns else {}


def _present(column: NDArray[np.generic]) -> Values:
    """The column's values as float64 [values], without the missing ones (NaN). Raises `TypeError`, `ValueError`."""
    array = np.asarray(column)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise TypeError(f"a column is an array of numbers with one dimension, not {array.dtype} of shape {array.shape}")
    values: Values = array.astype(np.float64)
    values = values[~np.isnan(values)]
    if np.isinf(values).any():
        raise ValueError("a column holds infinity")
    return values


def _checked_edges(edges: object, span: float) -> Values:
    wanted = np.array(edges, np.float64)
    if not 2 <= len(wanted) <= limits.MAX_EDGES:
        raise TaskRefused(f"A query has 2 to {limits.MAX_EDGES:,} edges, not {len(wanted):,}.")
    if not np.isfinite(wanted).all() or not (np.diff(wanted) > 0).all():
        raise TaskRefused("The edges of a query are finite and ascend.")
    if np.diff(wanted).min() < NARROWEST_BIN * span:
        raise TaskRefused("The query counts in bins so narrow that they would find single values out.")
    return wanted


def _counts(values: Values, edges: Values) -> list[int]:
    """How many values lie below the first edge, in each bin, and above the last edge, which belongs to the last bin."""
    where = np.searchsorted(edges, values, side="right")
    where[values == edges[-1]] = len(edges) - 1
    return [int(count) for count in np.bincount(where, minlength=len(edges) + 1)]
