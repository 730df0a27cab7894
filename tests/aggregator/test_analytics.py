"""Merging of aggregates: exact, independent of order, within the stated bounds, and closed to hostile answers.

The sites here are the agents' own code (`client_agent.queries`) over arrays; NumPy on the pooled data is the reference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from aggregator.core.analytics import Answer, Ask, BadAnswer, QueryConfig, Result, check, passes
from client_agent import App, Context
from client_agent.queries import OpenColumns, rounded_outward
from protos.fedui.v1 import task_pb2

Site = NDArray[np.float64]

values = st.floats(-1e6, 1e6, width=32)
sites = st.lists(st.lists(values, min_size=1, max_size=30).map(np.array), min_size=1, max_size=6)


def columns_of(site: Site) -> OpenColumns:
    app = App(
        "toy", "1", "numpy", lambda context: pytest.fail("no query needs the client"), columns=lambda _: {"x": site}
    )
    return OpenColumns.of(app, Context("site"), min_values=1)


def answer_of(site: Site, ask: Ask) -> Answer:
    query = task_pb2.ColumnQuery(column="x", moments=ask.moments, extremes=ask.extremes, edges=ask.edges)
    told = columns_of(site).answer(query)
    answer = Answer(told.count, told.sum, told.squared_deviations, told.low, told.high, tuple(told.counts))
    check(ask, answer)
    return answer


def run(pool: Sequence[Site], **config: Any) -> Result:
    plan = passes(QueryConfig.model_validate({"column": "x"} | config))
    ask = next(plan)
    while True:
        try:
            ask = plan.send([answer_of(site, ask) for site in pool])
        except StopIteration as end:
            result: Result = end.value
            return result


@given(sites)
def test_moments_are_those_of_the_pooled_values(pool: list[Site]) -> None:
    pooled = np.concatenate(pool)
    figures = run(pool, statistics=["count", "sum", "mean", "std"]).figures
    exact = [Fraction(value) for value in pooled.tolist()]
    mean = sum(exact, Fraction(0)) / len(exact)
    deviation = math.sqrt(sum(((value - mean) ** 2 for value in exact), Fraction(0)) / len(exact))
    assert figures["count"] == len(pooled)
    assert figures["sum"] == pytest.approx(math.fsum(pooled), rel=1e-12, abs=1e-9)
    assert figures["mean"] == pytest.approx(float(mean), rel=1e-12, abs=1e-9)
    assert figures["std"] == pytest.approx(deviation, rel=1e-9, abs=1e-9)


def test_a_large_mean_costs_the_deviation_no_digits() -> None:
    pool = [np.array([1e9 + 1, 1e9 + 2]), np.array([1e9 + 3, 1e9 + 4])]
    assert run(pool, statistics=["std"]).figures["std"] == np.std([1.0, 2.0, 3.0, 4.0])


@given(sites, st.randoms())
def test_the_order_of_the_answers_changes_no_bit(pool: list[Site], random: Any) -> None:
    everything = {"statistics": ["count", "sum", "mean", "std", "min", "max", "histogram", "quantiles"]}
    shuffled = random.sample(pool, len(pool))
    assert run(pool, **everything) == run(shuffled, **everything)


@given(sites, st.integers(1, 50))
def test_the_histogram_is_that_of_the_pooled_values(pool: list[Site], bins: int) -> None:
    histogram = run(pool, statistics=["histogram"], bins=bins).histogram
    assert histogram is not None
    expected, _ = np.histogram(np.concatenate(pool), histogram.edges)
    assert list(histogram.counts) == expected.tolist()
    assert (histogram.below, histogram.above) == (0, 0)
    assert len(histogram.counts) == bins


@given(sites, st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20), st.sampled_from([1e-4, 1e-3, 0.1]))
def test_quantiles_keep_their_bound(pool: list[Site], shares: list[float], tolerance: float) -> None:
    pooled = np.sort(np.concatenate(pool))
    result = run(pool, statistics=["quantiles"], quantiles=shares, tolerance=tolerance)
    low, high = rounded_outward(pooled[0], pooled[-1])
    span = high - low or max(1.0, abs(low))
    for quantile in result.quantiles:
        assert quantile.value is not None and quantile.error is not None
        true = pooled[math.ceil(Fraction(repr(quantile.share)) * len(pooled)) - 1]
        assert abs(quantile.value - true) <= quantile.error
        assert quantile.error <= tolerance * span * (1 + 1e-6)


def test_quantiles_agree_with_numpy() -> None:
    rng = np.random.default_rng(5)
    pool = [rng.normal(loc, 1.0, 500) for loc in range(4)]
    expected = np.quantile(np.concatenate(pool), [0.1, 0.25, 0.5, 0.9], method="inverted_cdf")
    for quantile, true in zip(
        run(pool, statistics=["quantiles"], quantiles=[0.1, 0.25, 0.5, 0.9]).quantiles, expected, strict=True
    ):
        assert quantile.value == pytest.approx(true, abs=quantile.error)


def test_a_range_that_is_given_is_kept_and_what_lies_outside_is_counted() -> None:
    pool = [np.arange(10.0), np.arange(10.0, 20.0)]
    result = run(pool, statistics=["histogram", "quantiles"], bins=2, low=5.0, high=15.0, quantiles=[0.1, 0.5, 0.95])
    assert result.histogram is not None
    assert (result.histogram.edges, result.histogram.counts) == ((5.0, 10.0, 15.0), (5, 6))
    assert (result.histogram.below, result.histogram.above) == (5, 4)
    assert [q.value is None for q in result.quantiles] == [True, False, True]


def test_equal_values_have_a_histogram_too() -> None:
    histogram = run([np.full(3, 7.0), np.full(2, 7.0)], statistics=["histogram"], bins=4).histogram
    assert histogram is not None
    assert sum(histogram.counts) == 5


GOOD = Answer(count=3, sum=6.0, squared_deviations=2.0, low=1.0, high=3.0, counts=(0, 2, 1, 0))
ASK = Ask(moments=True, extremes=True, edges=(0.0, 2.0, 4.0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": 0, "counts": (0, 0, 0, 0)}, "number of values is not from 1"),
        ({"count": 10**12}, "number of values is not from 1"),
        ({"sum": math.nan}, "sum is not a finite number"),
        ({"sum": math.inf}, "sum is not a finite number"),
        ({"sum": 1e200}, "beyond"),
        ({"squared_deviations": -1.0}, "negative"),
        ({"squared_deviations": math.nan}, "not a finite number"),
        ({"low": math.nan}, "low is not a finite number"),
        ({"high": -math.inf}, "high is not a finite number"),
        ({"low": 5.0}, "ends before it begins"),
        ({"counts": (0, 2, 1)}, "not the 4 counts"),
        ({"counts": (0, 2, 2, -1)}, "negative"),
        ({"counts": (0, 2, 2, 0)}, "don't add up"),
        ({"counts": ()}, "not the 4 counts"),
    ],
)
def test_an_answer_that_no_column_gives_is_refused(change: dict[str, Any], reason: str) -> None:
    check(ASK, GOOD)
    with pytest.raises(BadAnswer, match=reason):
        check(ASK, replace(GOOD, **change))


@pytest.mark.parametrize(
    "change",
    [{"count": 5_417}, {"count": 5_417_000_000}, {"sum": 5.417e160}, {"squared_deviations": -5_417.0}, {"low": 5_417.0},
     {"counts": (0, 2, -5_417, 0)}, {"counts": (0, 2, 5_417, 0)}, {"counts": (0,) * 5_417}],
)  # fmt: skip
def test_what_all_read_of_a_refused_answer_has_none_of_its_figures(change: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer) as refused:
        check(ASK, replace(GOOD, **change))
    assert not re.search("5.?417", str(refused.value))


@pytest.mark.parametrize(
    "config",
    [
        {"statistics": []},
        {"statistics": ["median"]},
        {"statistics": ["count"], "low": 1.0},
        {"statistics": ["count"], "low": 2.0, "high": 1.0},
        {"statistics": ["count"], "low": math.nan, "high": 1.0},
        {"statistics": ["count"], "bins": 1_001},
        {"statistics": ["count"], "quantiles": [1.0]},
        {"statistics": ["count"], "quantiles": [n / 100 for n in range(1, 50)]},
        {"statistics": ["count"], "min_clients": 1},
        {"statistics": ["count"], "column": ""},
        {"statistics": ["count"], "rows": 5},
        {"statistics": ["count"], "labels": {"k" * 256: "v"}},
        {"statistics": ["count"], "labels": {"k": "v" * 256}},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QueryConfig.model_validate({"column": "x"} | config)
