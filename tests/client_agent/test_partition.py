"""Sharing a data set out among sites."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from client_agent.apps.partition import MIN_SAMPLES, Labels, dirichlet_partition, hold_out

labels = st.lists(st.integers(0, 9), min_size=1, max_size=300).map(np.array)
alphas = st.floats(0.05, 100)
seeds = st.integers(0, 2**32)


@given(labels, st.integers(1, 20), alphas, seeds)
def test_every_sample_goes_to_exactly_one_site(labels: Labels, partitions: int, alpha: float, seed: int) -> None:
    shares = dirichlet_partition(labels, partitions, alpha, seed)
    assert len(shares) == partitions
    assert sorted(np.concatenate(shares)) == list(range(len(labels)))


@given(labels, st.integers(1, 20), alphas, seeds)
def test_no_site_starves(labels: Labels, partitions: int, alpha: float, seed: int) -> None:
    smallest = min(len(share) for share in dirichlet_partition(labels, partitions, alpha, seed))
    assert smallest >= min(MIN_SAMPLES, len(labels) // partitions)


@given(labels, st.integers(1, 20), alphas, seeds)
def test_the_same_seed_gives_the_same_shares(labels: Labels, partitions: int, alpha: float, seed: int) -> None:
    first = dirichlet_partition(labels, partitions, alpha, seed)
    second = dirichlet_partition(labels, partitions, alpha, seed)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_small_alpha_makes_sites_differ_more() -> None:
    labels = np.arange(10_000) % 10

    def spread(alpha: float) -> float:
        counts = [np.bincount(labels[share], minlength=10) for share in dirichlet_partition(labels, 5, alpha, 0)]
        return float(np.std(counts))

    assert spread(0.1) > spread(1.0) > 2 * spread(1000.0)


@given(labels, st.floats(0, 1), seeds)
def test_the_held_out_part_has_each_label_in_proportion(labels: Labels, fraction: float, seed: int) -> None:
    rest, held_out = hold_out(labels, fraction, seed)
    assert sorted(np.concatenate([rest, held_out])) == list(range(len(labels)))
    for label in np.unique(labels):
        assert (labels[held_out] == label).sum() == round(fraction * (labels == label).sum())
