"""Selection of a round's cohort."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

from aggregator.core.config import CohortConfig


def updates_wanted(config: CohortConfig, num_eligible: int) -> int:
    """How many updates a round is after: a fraction of the eligible clients, at least `min_clients`."""
    return min(num_eligible, max(config.min_clients, math.ceil(config.fraction * num_eligible)))


def select_cohort(config: CohortConfig, seed: int, round_number: int, eligible: Iterable[str]) -> tuple[str, ...]:
    """The clients that are asked in a round, sorted; a function of nothing but the arguments.

    `over_selection` times the updates wanted, drawn without replacement and uniformly: each client gets a pseudo-random rank from
    seed, round and its id, and the lowest ranks win. So a client that comes or goes changes no other's rank.
    """
    clients = sorted(set(eligible))
    size = min(len(clients), math.ceil(config.over_selection * updates_wanted(config, len(clients))))
    ranked = sorted(clients, key=lambda client: _rank(seed, round_number, client))
    return tuple(sorted(ranked[:size]))


def _rank(seed: int, round_number: int, client: str) -> bytes:
    return hashlib.sha256(f"cohort|{seed}|{round_number}|{client}".encode()).digest()
