"""Selection of a cohort."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.cohort import select_cohort
from aggregator.core.config import CohortConfig

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
