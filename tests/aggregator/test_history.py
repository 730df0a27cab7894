"""What is usual for a client, and what isn't known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.history import FEWEST, PARTS, History, Pace

paces = st.builds(Pace, *[st.floats(0, 1e4)] * 3)


def test_the_usual_time_is_the_sum_of_each_phase_s_ninth_decile() -> None:
    history = History({"a": [Pace(1.0, 10.0 * k, 2.0) for k in range(1, 11)]})
    assert history.usual_seconds("a") == 1.0 + 90.0 + 2.0
    assert history.upload_seconds("a") == 2.0


def test_an_outlier_moves_nothing_and_old_parts_are_forgotten() -> None:
    history = History({"a": [Pace(0.0, 5.0, 0.0)] * 18 + [Pace(0.0, 1e9, 0.0)] * 2})
    assert history.usual_seconds("a") == 5.0
    for _ in range(PARTS):
        history.completed("a", Pace(0.0, 7.0, 0.0))
    assert history.usual_seconds("a") == 7.0


def test_who_has_missed_its_deadline_begins_anew() -> None:
    history = History({"a": [Pace(1.0, 1.0, 1.0)] * FEWEST})
    history.missed("a")
    assert history.usual_seconds("a") is None


@pytest.mark.parametrize("number", range(FEWEST))
def test_with_fewer_nothing_is_usual(number: int) -> None:
    assert History({"a": [Pace(1.0, 1.0, 1.0)] * number}).usual_seconds("a") is None


@given(st.lists(paces, min_size=FEWEST, max_size=PARTS))
def test_it_lies_between_the_fastest_and_the_slowest(those: list[Pace]) -> None:
    usual = History({"a": those}).usual_seconds("a")
    totals = [[p.download for p in those], [p.train for p in those], [p.upload for p in those]]
    assert usual is not None
    assert sum(map(min, totals)) - 1e-6 <= usual <= sum(map(max, totals)) + 1e-6
