"""How runs and queries share the clients: who has how many tasks in hand, and whose task comes next.

A client has so many tasks in hand as its agent takes at once, one unless it says otherwise; the others wait here. When it is
free, the task goes to whoever has been served least: by the seconds that clients have worked for it. One that comes, or comes
back, begins level with the least served of those that wait or work, so that nobody is starved by the past of another; among
equals the one that has waited longest. (Fair queueing by virtual time: Demers, Keshav, Shenker, SIGCOMM 1989.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

REMEMBERED = 1_000
"""Of so many that have nothing to do now, what they were served is known when they come back."""


class Sharer(Protocol):
    """A task, as far as sharing goes."""

    @property
    def client_id(self) -> str: ...

    @property
    def task_id(self) -> str: ...

    @property
    def run_id(self) -> str: ...

    @property
    def federation_id(self) -> str: ...


A = TypeVar("A", bound=Sharer)


@dataclass(slots=True)
class _Place(Generic[A]):
    assignment: A
    since: float
    in_hand: bool = False


class Sharing(Generic[A]):
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: dict[str, dict[str, _Place[A]]] = {}
        """By client, then task, in the order in which they came."""
        self._open: dict[str, int] = {}
        self._served: dict[str, float] = {}
        self._federations: dict[str, str] = {}

    def add(self, assignment: A) -> None:
        run = assignment.run_id
        if not self._open.get(run):
            self._begin(run, assignment.federation_id)
        self._open[run] = self._open.get(run, 0) + 1
        self._places.setdefault(assignment.client_id, {})[assignment.task_id] = _Place(assignment, self._clock())

    def next_for(self, client_id: str, most: int) -> A | None:
        """The task that a client with room for `most` is given now; None if it has no room, or nothing waits."""
        places = self._places.get(client_id, {}).values()
        waiting = [place for place in places if not place.in_hand]
        if not waiting or len(places) - len(waiting) >= most:
            return None
        place = min(waiting, key=lambda one: self._served[one.assignment.run_id])  # the first of equals
        place.in_hand, place.since = True, self._clock()
        return place.assignment

    def release(self, assignment: A) -> bool:
        """The client has no more to do with it. False if that was so already."""
        places = self._places.get(assignment.client_id, {})
        if (place := places.pop(assignment.task_id, None)) is None:
            return False
        if not places:
            del self._places[assignment.client_id]
        if place.in_hand:
            self._served[assignment.run_id] += self._clock() - place.since
        self._open[assignment.run_id] -= 1
        if not self._open[assignment.run_id]:
            del self._open[assignment.run_id]
        return True

    def is_in_hand(self, assignment: A) -> bool:
        place = self._places.get(assignment.client_id, {}).get(assignment.task_id)
        return place is not None and place.in_hand

    def at_work_for(self, client_id: str) -> list[str]:
        """The runs whose tasks the client has in hand."""
        return [place.assignment.run_id for place in self._places.get(client_id, {}).values() if place.in_hand]

    def _begin(self, run: str, federation: str) -> None:
        """Others share no clients with it than those of its federation."""
        self._federations[run] = federation
        beside = [self._served[other] for other in self._open if self._federations[other] == federation]
        self._served[run] = max(self._served.pop(run, 0.0), min(beside, default=0.0))
        self._forget_the_idle()

    def _forget_the_idle(self) -> None:
        idle = [run for run in self._served if run not in self._open]  # the longest first
        for run in idle[: max(0, len(idle) - REMEMBERED)]:
            del self._served[run], self._federations[run]
