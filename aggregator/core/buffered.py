"""The state machine of one attempt at a round of a buffered run (FedBuff): `RoundMachine` without a cohort.

    FITTING ──K updates are counted──▶ AGGREGATING ──Committed──▶ DONE
       └──nobody is left to train, stop──▶ DONE (abandoned)

Round r begins with version r − 1 of the model. Every client that is there, as far as `concurrency` lets it, trains: a free
one is asked at once, from the newest version. One whose update is counted waits for the next version; one that trains
on when the round ends is handed to the next round's machine (`training`), and its update counts there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from aggregator.core.modes import Buffered
from aggregator.core.round import (
    Abandon,
    Action,
    Cancel,
    ClientEnded,
    ClientPhase,
    ClientsChanged,
    Outcome,
    ParticipationReport,
    RoundEvent,
    RoundMachine,
    RoundPhase,
    SendFit,
    SetDeadline,
    TaskHanded,
    TaskWaits,
)

TRIES = 3
"""How often a client that ends without an update is asked in one round: one that fails at once must not be asked for ever."""


@dataclass(frozen=True, slots=True)
class Training:
    """A client that trains on while rounds come and go."""

    version: int
    """Of the model that it was given."""
    report: ParticipationReport
    entered: tuple[ClientPhase, float]


class BufferMachine(RoundMachine):
    def __init__(
        self,
        mode: Buffered,
        number: int,
        *,
        seed: int,
        eligible: Collection[str],
        training: Mapping[str, Training],
        wait_seconds: float,
    ) -> None:
        """`training` is what the machine before this one has left. With nobody to train the round is given up after `wait_seconds`."""
        super().__init__(
            (), wanted=mode.buffer_size, quorum=mode.buffer_size, deadline_seconds=wait_seconds, evaluate=False
        )
        self.participations = {
            client: replace(one.report, staleness=number - 1 - one.version) for client, one in training.items()
        }
        self._entered = {client: one.entered for client, one in training.items()}
        self.training: dict[str, Training] = {}
        """When the round has been closed: who trains on."""
        self._mode = mode
        self._number, self._seed = number, seed
        self._eligible = frozenset(eligible)
        self._tries: Counter[str] = Counter()
        self._waiting = False
        self._now = 0.0

    def staleness(self, client_id: str) -> int:
        """Versions between the model that the client was given for its update and the current one."""
        return self.participations[client_id].staleness

    def start(self, at: float) -> list[Action]:
        self._now = at
        stale = tuple(c for c in self.pending if self.staleness(c) > self._mode.max_staleness)
        actions: list[Action] = []
        if stale:
            reason = (
                f"The model that this client trained on is more than {self._mode.max_staleness} versions old: "
                "its update would not count."
            )
            self._end(stale, Outcome.CANCELLED, reason)
            actions.append(Cancel(stale, reason))
        return [*actions, *self._ask()]

    def handle(self, event: RoundEvent) -> list[Action]:
        self._now = event.at
        return super().handle(event)

    def _ask(self) -> list[Action]:
        """Give work to whoever is free."""
        busy = self.pending
        free = sorted((c for c in self._eligible if self._may_be_asked(c)), key=self._rank)
        most = len(free) if self._mode.concurrency is None else max(0, self._mode.concurrency - len(busy))
        if chosen := tuple(free[:most]):
            for client in chosen:
                self.participations[client] = ParticipationReport(client)
                self._entered[client] = (ClientPhase.DOWNLOADING, self._now)
            self._waiting = False
            return [SendFit(chosen)]
        if busy:
            return []
        if exhausted := sum(tries >= TRIES for tries in self._tries.values()):
            clients = "1 client has" if exhausted == 1 else f"{exhausted} clients have"
            return self._abandon(
                f"{self._so_far()}, nobody is left to train, and {clients} failed {TRIES} times in the round."
            )
        if self._waiting:
            return []  # the wait goes on, and is no longer for whoever comes or goes meanwhile
        self._waiting = True
        return [SetDeadline(self._deadline_seconds)]

    def _may_be_asked(self, client: str) -> bool:
        known = self.participations.get(client)
        engaged = known is not None and known.outcome in (Outcome.PENDING, Outcome.COMPLETED)
        return not engaged and self._tries[client] < TRIES

    def _rank(self, client: str) -> bytes:
        """In another order every round, so that a small `concurrency` keeps nobody out."""
        return hashlib.sha256(f"buffered|{self._seed}|{self._number}|{client}".encode()).digest()

    def _on_waits(self, event: TaskWaits) -> list[Action]:
        """There is no deadline that could stand still: each client's own begins when it is given its task."""
        return []

    def _on_handed(self, event: TaskHanded) -> list[Action]:
        if self.phase is RoundPhase.FITTING and event.client_id in self.pending:
            self._entered[event.client_id] = (ClientPhase.DOWNLOADING, event.at)
        return []

    def _on_clients_changed(self, event: ClientsChanged) -> list[Action]:
        self._eligible = event.eligible
        return self._ask() if self.phase is RoundPhase.FITTING else []

    def _on_client_ended(self, event: ClientEnded) -> list[Action]:
        if self.phase is not RoundPhase.FITTING or event.client_id not in self.pending:
            return []
        self._tries[event.client_id] += 1
        is_late = event.outcome is Outcome.LATE
        late: list[Action] = [Cancel((event.client_id,), event.reason, late=True)] if is_late else []
        return [*late, *super()._on_client_ended(event)]

    def _close_if_settled(self) -> list[Action]:
        return self._aggregate("the buffer is full") if self.received >= self._wanted else self._ask()

    def _on_deadline(self) -> list[Action]:
        if self.phase is not RoundPhase.FITTING or self.pending:
            return []
        return self._abandon(f"{self._so_far()}, and no client has come to train within {self._deadline_seconds:g} s.")

    def _so_far(self) -> str:
        return f"The buffer has {self.received} of {self._wanted} updates"

    def _on_stop(self, reason: str) -> list[Action]:
        if self.phase is not RoundPhase.FITTING:
            return super()._on_stop(reason)
        open_clients = self.pending
        self._end(open_clients, Outcome.CANCELLED, reason)
        return [*([Cancel(open_clients, reason)] if open_clients else []), *self._abandon(reason)]

    def _aggregate(self, cause: str) -> list[Action]:
        self._set_aside()
        return super()._aggregate(cause)

    def _abandon(self, reason: str) -> list[Action]:
        """Without a word to those who train: their updates count in the next attempt."""
        self._set_aside()
        self.phase = RoundPhase.DONE
        return [Abandon(reason)]

    def _set_aside(self) -> None:
        for client in self.pending:
            report = self.participations.pop(client)
            version = self._number - 1 - report.staleness
            self.training[client] = Training(version, report, self._entered[client])
