"""Means of reported metrics."""

import math

import pytest

from aggregator.core.metrics import MAX_NAMES, numeric, weighted_means


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
