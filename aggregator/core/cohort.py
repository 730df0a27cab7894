"""Selection of a round's cohort."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from aggregator.core.config import CohortConfig


def updates_wanted(config: CohortConfig, num_eligible: int) -> int:
    """How many updates a round is after: a fraction of the eligible clients, at least `min_clients`."""
    return min(num_eligible, max(config.min_clients, math.ceil(config.fraction * num_eligible)))


def cohort_size(config: CohortConfig, num_eligible: int) -> int:
    """How many are asked for that: `over_selection` times as many, as far as there are."""
    return min(num_eligible, math.ceil(config.over_selection * updates_wanted(config, num_eligible)))


def select_cohort(config: CohortConfig, seed: int, round_number: int, eligible: Iterable[str]) -> tuple[str, ...]:
    """The clients that are asked in a round, sorted; a function of nothing but the arguments.

    Drawn without replacement and uniformly: each client gets a pseudo-random rank from seed, round and its id, and the
    lowest ranks win. So a client that comes or goes changes no other's rank.
    """
    clients = sorted(set(eligible))
    ranked = sorted(clients, key=lambda client: _rank(seed, round_number, client))
    return tuple(sorted(ranked[: cohort_size(config, len(clients))]))


def _rank(seed: int, round_number: int, client: str) -> bytes:
    return hashlib.sha256(f"cohort|{seed}|{round_number}|{client}".encode()).digest()
