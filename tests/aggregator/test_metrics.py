"""Means of reported metrics."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.core.metrics import MAX_NAMES, numeric, weighted_means
from protos.limits import MAX_NUM_EXAMPLES

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_only_finite_numbers_count() -> None:
    assert numeric(
        {"loss": 0.5, "n": 3, "note": "x", "raw": b"x", "bad": math.nan, "worse": math.inf, "flag": True}
    ) == {
        "loss": 0.5,
        "n": 3.0,
        "flag": 1.0,
    }


def test_an_agent_cannot_invent_names_without_end() -> None:
    assert len(numeric({f"m{i}": i for i in range(1000)})) == MAX_NAMES


def test_names_that_are_the_same_where_they_are_cut_are_one() -> None:
    assert numeric({"x" * 63 + "a": 1, "x" * 63 + "b": 2}) == {"x" * 63: 2.0}


def test_means_are_weighted_by_examples_over_those_who_report() -> None:
    means = weighted_means([({"loss": 1.0}, 10), ({"loss": 4.0, "f1": 0.5}, 20)])
    assert means == {"loss": (pytest.approx(3.0), 30), "f1": (0.5, 20)}
    assert weighted_means([]) == {}


@given(st.lists(st.tuples(finite, st.integers(1, MAX_NUM_EXAMPLES)), min_size=1))
@example([(1e308, 10)])
@example([(1e308, 1), (-1e308, 1)])
@example([(1e308, 7), (1e308, 3), (-1e308, 10)])
def test_a_mean_of_numbers_of_any_size_is_none_that_is_larger(reports: list[tuple[float, int]]) -> None:
    means = weighted_means([({"loss": value}, count) for value, count in reports])
    largest = max(abs(value) for value, _ in reports)
    if means or largest < 1e308:
        mean, weight = means["loss"]
        assert math.isfinite(mean)
        assert abs(mean) <= largest * (1 + 1e-12)
        assert weight == sum(count for _, count in reports)


def test_the_mean_of_equal_values_is_that_value() -> None:
    assert weighted_means([({"accuracy": 0.9}, 10), ({"accuracy": 0.9}, 20)]) == {"accuracy": (0.9, 30)}
