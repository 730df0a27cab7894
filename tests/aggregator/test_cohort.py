"""Selection of a cohort."""

from collections import Counter
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.cohort import Attendance, cohort_size, select_cohort, updates_wanted
from aggregator.core.config import CohortConfig

Order = Literal["random", "cyclic", "available"]

clients = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


@given(clients, st.integers(0, 2**64), st.integers(1, 10_000), st.floats(0.01, 1))
def test_it_depends_on_nothing_but_seed_round_and_the_set_of_clients(
    eligible: set[str], seed: int, number: int, fraction: float
) -> None:
    config = CohortConfig(fraction=fraction, min_clients=2)
    chosen = select_cohort(config, seed, number, sorted(eligible))
    assert chosen == select_cohort(config, seed, number, sorted(eligible, reverse=True))
    assert set(chosen) <= eligible
    assert len(set(chosen)) == len(chosen) >= min(2, len(eligible))


@given(clients, st.integers(0, 2**32), st.integers(1, 100))
def test_a_client_that_was_not_chosen_changes_nothing_by_leaving(eligible: set[str], seed: int, number: int) -> None:
    config = CohortConfig(fraction=1e-9, min_clients=3)
    chosen = select_cohort(config, seed, number, eligible)
    for absent in eligible - set(chosen):
        assert select_cohort(config, seed, number, eligible - {absent}) == chosen


def test_every_client_is_chosen_about_equally_often() -> None:
    eligible = [f"client-{i}" for i in range(10)]
    config = CohortConfig(fraction=0.3, min_clients=1)
    counts = Counter(c for number in range(2000) for c in select_cohort(config, 7, number, eligible))
    assert set(counts) == set(eligible)
    assert all(500 < n < 700 for n in counts.values())  # expected 600, standard deviation 20


@given(
    clients,
    st.floats(0.01, 1),
    st.integers(1, 5),
    st.integers(0, 5),
    st.sampled_from(["random", "cyclic", "available"]),
)
def test_a_round_has_neither_too_few_clients_nor_too_many(
    eligible: set[str], fraction: float, least: int, more: int, order: Order
) -> None:
    config = CohortConfig(fraction=fraction, min_clients=least, max_clients=least + more, order=order)
    chosen = select_cohort(config, 1, 3, eligible)
    assert chosen == tuple(sorted(set(chosen)))
    assert set(chosen) <= eligible
    assert min(least, len(eligible)) <= len(chosen) <= least + more


def test_over_selection_asks_more_for_the_updates_that_are_wanted() -> None:
    config = CohortConfig(max_clients=4, over_selection=1.5)
    assert (updates_wanted(config, 100), cohort_size(config, 100), cohort_size(config, 5)) == (4, 6, 5)


def test_in_cyclic_order_the_clients_take_turns() -> None:
    config = CohortConfig(min_clients=1, max_clients=2, order="cyclic")
    rounds = [select_cohort(config, seed, number, "cabed") for number, seed in enumerate([7, 8, 9, 7, 7], start=1)]
    assert rounds == [("a", "b"), ("c", "d"), ("a", "e"), ("b", "c"), ("d", "e")]


def test_in_cyclic_order_an_attempt_that_failed_passes_the_turn_on() -> None:
    config = CohortConfig(min_clients=1, max_clients=1, order="cyclic")
    attempts = [select_cohort(config, 7, 2, "abc", failed=failed) for failed in range(4)]
    assert attempts == [("b",), ("c",), ("a",), ("b",)]


@given(clients, st.integers(0, 2**32), st.integers(1, 100), st.sampled_from(["random", "available"]))
def test_other_orders_ask_the_same_clients_again(eligible: set[str], seed: int, number: int, order: Order) -> None:
    config = CohortConfig(fraction=0.5, min_clients=1, order=order)
    assert select_cohort(config, seed, number, eligible, failed=2) == select_cohort(config, seed, number, eligible)


@given(clients, st.integers(1, 10), st.integers(1, 200))
def test_cyclic_order_asks_each_as_often_as_any_other(eligible: set[str], size: int, rounds: int) -> None:
    config = CohortConfig(fraction=1e-9, min_clients=size, order="cyclic")
    counts = Counter(c for number in range(1, rounds + 1) for c in select_cohort(config, 0, number, eligible))
    asked = [counts[client] for client in eligible]
    assert max(asked) - min(asked) <= 1


attendances = st.builds(lambda done, missed: Attendance(done + missed, done), st.integers(0, 50), st.integers(0, 50))


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), attendances, min_size=1),
    st.sets(st.text(max_size=3)),
    st.integers(),
)
def test_the_available_are_asked_before_those_that_answer_less(
    attendance: dict[str, Attendance], new: set[str], seed: int
) -> None:
    eligible = set(attendance) | new
    config = CohortConfig(fraction=0.5, min_clients=1, order="available")
    chosen = select_cohort(config, seed, 4, eligible, attendance)
    assert chosen == select_cohort(config, seed, 4, sorted(eligible, reverse=True), dict(reversed(attendance.items())))
    reliability = {client: attendance.get(client, Attendance()).reliability for client in eligible}
    left = eligible - set(chosen)
    assert not left or min(reliability[c] for c in chosen) >= max(reliability[c] for c in left)


def test_a_client_that_never_answers_is_asked_last_and_one_failure_weighs_less_than_many() -> None:
    attendance = {
        "dead": Attendance(4, 0),
        "good": Attendance(4, 4),
        "once": Attendance(1, 0),
        "half": Attendance(4, 2),
    }
    order: list[str] = []
    for size in range(1, 6):
        config = CohortConfig(fraction=1e-9, min_clients=size, order="available")
        order += set(select_cohort(config, 1, 1, {*attendance, "new"}, attendance)) - set(order)
    assert order[0] == "good"
    assert set(order[1:3]) == {"half", "new"}
    assert order[3:] == ["once", "dead"]


def test_equally_reliable_clients_are_drawn_as_at_random() -> None:
    eligible = [f"client-{i}" for i in range(10)]
    available = CohortConfig(fraction=0.3, min_clients=1, order="available")
    for number in range(1, 20):
        assert select_cohort(available, 7, number, eligible) == select_cohort(
            CohortConfig(fraction=0.3, min_clients=1), 7, number, eligible
        )
