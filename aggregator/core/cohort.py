"""Selection of a round's cohort."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aggregator.core.config import CohortConfig


@dataclass(frozen=True, slots=True)
class Attendance:
    """How often a client was asked in a run, by attempts at its rounds, and how often its update was taken in."""

    asked: int = 0
    completed: int = 0

    @property
    def reliability(self) -> float:
        """The share that it completed by Laplace's rule of succession, so that one who has never been asked has 1/2."""
        return (self.completed + 1) / (self.asked + 2)

    def after(self, *, completed: bool) -> Attendance:
        return Attendance(self.asked + 1, self.completed + completed)


def updates_wanted(config: CohortConfig, num_eligible: int) -> int:
    """How many updates a round is after: a fraction of the eligible clients, from `min_clients` to `max_clients`."""
    most = num_eligible if config.max_clients is None else min(num_eligible, config.max_clients)
    return min(most, max(config.min_clients, math.ceil(config.fraction * num_eligible)))


def cohort_size(config: CohortConfig, num_eligible: int) -> int:
    """How many are asked for that: `over_selection` times as many, as far as there are."""
    return min(num_eligible, math.ceil(config.over_selection * updates_wanted(config, num_eligible)))


@dataclass(frozen=True, slots=True)
class Selection:
    """The clients that are asked in a round, sorted, and those that could replace them, the first to be asked first."""

    cohort: tuple[str, ...]
    reserve: tuple[str, ...]


def select(
    config: CohortConfig,
    seed: int,
    round_number: int,
    eligible: Iterable[str],
    attendance: Mapping[str, Attendance] | None = None,
    failed: int = 0,
) -> Selection:
    """A function of nothing but the arguments: cohort and reserve are one order of the eligible clients, cut in two.

    `attendance` is the run's record so far, which the order "available" alone looks at; `failed` counts the attempts
    at the round that came to nothing, which pass the turn on in the order "cyclic".
    """
    clients = sorted(set(eligible))
    size = cohort_size(config, len(clients))
    match config.order:
        case "random":
            order = _by_rank(seed, round_number, clients)
        case "cyclic":
            order = _in_turn(round_number + failed, clients, size)
        case "available":
            order = _by_reliability(seed, round_number, clients, attendance or {})
    return Selection(tuple(sorted(order[:size])), tuple(order[size:]))


def select_cohort(
    config: CohortConfig,
    seed: int,
    round_number: int,
    eligible: Iterable[str],
    attendance: Mapping[str, Attendance] | None = None,
    failed: int = 0,
) -> tuple[str, ...]:
    """The cohort of `select`."""
    return select(config, seed, round_number, eligible, attendance, failed).cohort


def _by_rank(seed: int, round_number: int, clients: list[str]) -> list[str]:
    """Drawn without replacement and uniformly: each client gets a pseudo-random rank from seed, round and its id, and the
    lowest ranks win. So a client that comes or goes changes no other's rank.
    """
    return sorted(clients, key=lambda client: _rank(seed, round_number, client))


def _in_turn(turn: int, clients: list[str], size: int) -> list[str]:
    """Turn t continues in the sorted ids where turn t - 1 ended, and begins again after the last.

    While the same clients are there and no attempt fails, each is asked as often as any other, to within one round.
    """
    first = (turn - 1) * size
    return [clients[(first + k) % len(clients)] for k in range(len(clients))]


def _by_reliability(
    seed: int, round_number: int, clients: list[str], attendance: Mapping[str, Attendance]
) -> list[str]:
    """Those that completed most of what they were asked for; among equals as in a random order."""

    def place(client: str) -> tuple[float, bytes]:
        return -attendance.get(client, Attendance()).reliability, _rank(seed, round_number, client)

    return sorted(clients, key=place)


def _rank(seed: int, round_number: int, client: str) -> bytes:
    return hashlib.sha256(f"cohort|{seed}|{round_number}|{client}".encode()).digest()
