"""What an agent tells of its columns, and what it doesn't."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_agent import App, BrokenApp, Context, TaskRefused
from client_agent.apps import breast_cancer, digits_numpy
from client_agent.hosting import host
from client_agent.queries import OpenColumns, rounded_outward
from protos.fedui.v1.task_pb2 import ColumnQuery
from tests.client_agent.toy import ToyClient


def opened(columns: Mapping[str, Any], min_values: int = 10) -> OpenColumns:
    app = App("toy", "1", "numpy", lambda _: ToyClient(), columns=lambda _: columns)
    return OpenColumns.of(app, Context("site"), min_values)


def test_sums_and_counts_leave_missing_values_out() -> None:
    column = np.array([*range(20), np.nan], np.float32)
    answer = opened({"age": column}).answer(ColumnQuery(column="age", moments=True, edges=[5, 10, 15]))
    assert (answer.count, answer.sum) == (20, 190.0)
    assert answer.squared_deviations == pytest.approx(np.var(np.arange(20)) * 20)
    assert list(answer.counts) == [5, 5, 6, 4]
    assert (answer.low, answer.high) == (0, 0), "nobody asked for the range"


def test_a_range_is_rounded_outward() -> None:
    column = np.linspace(12.34, 987.6, 30)
    answer = opened({"age": column}).answer(ColumnQuery(column="age", extremes=True))
    assert (answer.low, answer.high) == (12.0, 990.0)


@given(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100))
def test_the_rounded_range_holds_the_true_one(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    below, above = rounded_outward(low, high)
    assert below <= low and high <= above
    assert float(f"{below:.1e}") == below and float(f"{above:.1e}") == above


@pytest.mark.parametrize(
    ("column", "query", "reason"),
    [
        (np.arange(9.0), {}, "fewer than the 10 values"),
        (np.array([1.0] * 9 + [np.nan] * 5), {}, "fewer than the 10 values"),
        (np.arange(20.0), {"column": "name"}, "opens no column 'name'"),
        (np.arange(20.0), {"edges": [3, 3 + 1e-6]}, "single values"),
        (np.arange(20.0), {"edges": [3]}, "2 to 2,048 edges"),
        (np.arange(20.0), {"edges": range(3_000)}, "2 to 2,048 edges"),
        (np.arange(20.0), {"edges": [2, 1]}, "ascend"),
        (np.arange(20.0), {"edges": [0, float("nan")]}, "finite"),
        (np.arange(20.0), {"edges": [0, float("inf")]}, "finite"),
    ],
)
def test_the_owners_policy_is_kept(column: Any, query: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskRefused, match=reason):
        opened({"age": column}).answer(ColumnQuery(**({"column": "age"} | query)))


@pytest.mark.parametrize(
    "column", [np.array(["a"] * 20), np.zeros((20, 2)), np.array([np.inf] * 20), np.zeros(20, complex), ["x"] * 20]
)
def test_a_column_that_is_none_is_an_error_of_the_app(column: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        opened({"age": column}).answer(ColumnQuery(column="age"))


def test_an_app_without_columns_opens_none() -> None:
    hosted = host(App("toy", "1", "numpy", lambda _: ToyClient()), Context("site"))
    assert hosted.columns.names == ()
    with pytest.raises(TaskRefused, match="opens no column"):
        hosted.columns.answer(ColumnQuery(column="age"))


@pytest.mark.parametrize("columns", [{"": 1}, {"n" * 64: 1}, dict.fromkeys(map(str, range(257)))])
def test_columns_that_can_not_be_offered_are_told_at_start(columns: dict[str, Any]) -> None:
    with pytest.raises(BrokenApp):
        opened(columns)


def test_a_source_that_can_not_be_read_is_told_at_start() -> None:
    def columns(context: Context) -> Any:
        raise OSError("no such table")

    with pytest.raises(BrokenApp, match="no such table"):
        OpenColumns.of(App("toy", "1", "numpy", lambda _: ToyClient(), columns=columns), Context("site"))


@pytest.mark.parametrize(("module", "count"), [(breast_cancer, 31), (digits_numpy, 2)])
def test_the_built_in_apps_open_their_columns(module: Any, count: int) -> None:
    columns = host(module.app, Context("site", {"partitions": "3", "partition": "1"})).columns
    assert len(columns.names) == count
    for name in columns.names:
        assert columns.answer(ColumnQuery(column=name, moments=True, extremes=True)).count > 50


def test_measurements_are_in_their_own_units() -> None:
    columns = host(breast_cancer.app, Context("site")).columns
    answer = columns.answer(ColumnQuery(column="mean radius", moments=True))
    assert answer.sum / answer.count == pytest.approx(14.1, abs=0.3)
