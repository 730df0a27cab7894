"""Sharing one data set out among sites that differ, and setting test data aside that no site trains on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]
Labels = NDArray[Any]

MIN_SAMPLES = 5
"""A site gets at least so many, or an equal share where there are too few for that."""


def hold_out(labels: Labels, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Indices of (the rest, the held-out part): `fraction` of each label, rounded, so that proportions stay."""
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in sorted(set(labels.tolist())):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out[members[: round(fraction * len(members))]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def dirichlet_partition(labels: Labels, partitions: int, alpha: float, seed: int) -> list[Indices]:
    """Share out `range(len(labels))`: for each label, the sites' shares are drawn from Dirichlet(`alpha`).

    A small `alpha` gives sites with few of the labels, a large one sites that resemble each other (Hsu, Qi, Brown 2019,
    https://arxiv.org/abs/1909.06335). Every index goes to one site, and the same arguments give the same shares.
    """
    rng = np.random.default_rng(seed)
    owner = np.empty(len(labels), dtype=np.intp)
    for label in sorted(set(labels.tolist())):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(partitions, alpha))
        cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(np.intp)
        for site, part in enumerate(np.split(members, cuts)):
            owner[part] = site
    _feed_the_smallest(owner, partitions, rng)
    return [np.flatnonzero(owner == site) for site in range(partitions)]


def _feed_the_smallest(owner: Indices, partitions: int, rng: np.random.Generator) -> None:
    """Move samples from the largest site until each has its minimum: an empty site couldn't train."""
    minimum = min(MIN_SAMPLES, len(owner) // partitions)
    sizes = np.bincount(owner, minlength=partitions)
    while sizes.min() < minimum:
        giver, taker = sizes.argmax(), sizes.argmin()
        owner[rng.choice(np.flatnonzero(owner == giver))] = taker
        sizes[giver] -= 1
        sizes[taker] += 1
