"""The state machine of one attempt at a round: events in, actions out, no I/O and no clock of its own.

    FITTING ──all answered, or deadline with quorum──▶ AGGREGATING ──Committed──▶ EVALUATING ──all answered, or deadline──▶ DONE
       └──────quorum out of reach, stop──────────────▶ DONE (abandoned)

A client that drops out is replaced by the next of the reserve, as long as the round would otherwise get fewer updates than it
wants and the time left is enough for the next one. Where clients are busy in other runs, the deadline's clock stands still until as
many have their task as the quorum needs.

Each event carries the time at which it happened, in seconds on any monotonic clock. The driver (`aggregator.driver`) carries the actions
out; a simulation can feed the same machine from virtual clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from aggregator.core.round_events import (
    Abandon,
    Action,
    Aggregate,
    AggregationBroke,
    Cancel,
    ClientEnded,
    ClientPhase,
    ClientsChanged,
    Committed,
    DeadlinePassed,
    EvaluationArrived,
    Finish,
    HoldClock,
    Outcome,
    OwnDeadlinePassed,
    ParticipationReport,
    PhaseEntered,
    RoundEvent,
    RoundPhase,
    SendEvaluate,
    SendFit,
    SetDeadline,
    StartClock,
    StopRequested,
    TaskHanded,
    TaskWaits,
    UpdateArrived,
)

__all__ = [
    "Abandon",
    "Action",
    "Aggregate",
    "AggregationBroke",
    "Cancel",
    "ClientEnded",
    "ClientPhase",
    "ClientsChanged",
    "Committed",
    "DeadlinePassed",
    "EvaluationArrived",
    "Finish",
    "HoldClock",
    "Outcome",
    "OwnDeadlinePassed",
    "ParticipationReport",
    "PhaseEntered",
    "RoundEvent",
    "RoundMachine",
    "RoundPhase",
    "SendEvaluate",
    "SendFit",
    "SetDeadline",
    "StartClock",
    "StopRequested",
    "TaskHanded",
    "TaskWaits",
    "UpdateArrived",
]


class RoundMachine:
    """One attempt at a round. `start` first, then `handle` each event in the order in which they happened."""

    def __init__(
        self,
        cohort: Sequence[str],
        *,
        wanted: int,
        quorum: int,
        deadline_seconds: float,
        evaluate: bool,
        reserve: Sequence[str] = (),
        usual_seconds: Mapping[str, float] | None = None,
        wait_seconds: float | None = None,
    ) -> None:
        """The round closes with the `wanted`-th update, or with fewer, but no fewer than `quorum`, at its deadline.

        Drop-outs are replaced from the `reserve`, in its order, by those who usually need no longer than there is time; of one
        whose `usual_seconds` aren't known, half the deadline is expected. `wait_seconds` bounds the wait for clients that are
        busy in other runs; None: the deadline.
        """
        self.phase = RoundPhase.FITTING
        self.participations = {client: ParticipationReport(client) for client in cohort}
        self._wanted = wanted
        self._quorum = quorum
        self._deadline_seconds = deadline_seconds
        self._evaluate = evaluate
        self._reserve = list(reserve)
        self._usual_seconds = usual_seconds or {}
        self._wait_seconds = deadline_seconds if wait_seconds is None else wait_seconds
        self._available: frozenset[str] | None = None
        self._busy: set[str] = set()
        self._clock_stands = False
        self._due_at = 0.0
        self._evaluating: set[str] = set()
        self._entered: dict[str, tuple[ClientPhase, float]] = {}

    @property
    def received(self) -> int:
        return len(self.completed)

    @property
    def completed(self) -> tuple[str, ...]:
        """Clients whose updates are counted."""
        return tuple(c for c, p in self.participations.items() if p.outcome is Outcome.COMPLETED)

    @property
    def pending(self) -> tuple[str, ...]:
        """Clients that the round still waits for."""
        if self.phase is RoundPhase.EVALUATING:
            return tuple(sorted(self._evaluating))
        return tuple(c for c, p in self.participations.items() if p.outcome is Outcome.PENDING)

    @property
    def expected(self) -> int:
        """Updates that would come if nobody dropped out any more: a client and who replaces it are one."""
        return sum(not p.replaces for p in self.participations.values())

    def start(self, at: float) -> list[Action]:
        self._entered = dict.fromkeys(self.participations, (ClientPhase.DOWNLOADING, at))
        return [SendFit(tuple(self.participations)), self._set_deadline(at)]

    def _set_deadline(self, at: float) -> SetDeadline:
        self._due_at = at + self._deadline_seconds
        return SetDeadline(self._deadline_seconds)

    def handle(self, event: RoundEvent) -> list[Action]:
        match event:
            case PhaseEntered():
                return self._on_phase(event)
            case UpdateArrived():
                return self._on_update(event)
            case EvaluationArrived():
                return self._on_evaluation(event)
            case ClientEnded():
                return self._on_client_ended(event)
            case OwnDeadlinePassed():
                return self._on_own_deadline(event)
            case TaskWaits():
                return self._on_waits(event)
            case TaskHanded():
                return self._on_handed(event)
            case DeadlinePassed():
                return self._on_deadline()
            case Committed():
                return self._on_committed(event)
            case AggregationBroke():
                return self._abandon(event.reason) if self.phase in (RoundPhase.FITTING, RoundPhase.AGGREGATING) else []
            case StopRequested():
                return self._on_stop(event.reason)
            case ClientsChanged():
                return self._on_clients_changed(event)

    def _on_clients_changed(self, event: ClientsChanged) -> list[Action]:
        self._available = event.eligible
        return []

    def _on_waits(self, event: TaskWaits) -> list[Action]:
        if event.client_id not in self.pending:
            return []
        self._busy.add(event.client_id)
        if self._clock_stands or self._in_hand >= self._needed:
            return []
        self._clock_stands = True
        return [HoldClock(self._in_hand, self._needed), SetDeadline(self._wait_seconds)]

    def _on_handed(self, event: TaskHanded) -> list[Action]:
        if event.client_id not in self._busy:
            return []
        self._busy.discard(event.client_id)
        if self.phase is RoundPhase.FITTING:
            self._entered[event.client_id] = (ClientPhase.DOWNLOADING, event.at)
        if not self._clock_stands or self._in_hand < self._needed:
            return []
        self._clock_stands = False
        return [StartClock(self._in_hand), self._set_deadline(event.at)]

    @property
    def _in_hand(self) -> int:
        """Clients that have their task, or have done it."""
        if self.phase is RoundPhase.EVALUATING:
            return self.received - len(self._busy)
        return self.received + sum(client not in self._busy for client in self.pending)

    @property
    def _needed(self) -> int:
        return min(self._quorum, self.received) if self.phase is RoundPhase.EVALUATING else self._quorum

    def _on_phase(self, event: PhaseEntered) -> list[Action]:
        participation = self.participations.get(event.client_id)
        if self.phase is RoundPhase.FITTING and participation and participation.outcome is Outcome.PENDING:
            self._close_phase(participation, event.at)
            self._entered[event.client_id] = (event.phase, event.at)
        return []

    def _close_phase(self, participation: ParticipationReport, at: float) -> None:
        phase, since = self._entered[participation.client_id]
        match phase:
            case ClientPhase.DOWNLOADING:
                participation.download_seconds = at - since
            case ClientPhase.TRAINING:
                participation.train_seconds = at - since
            case ClientPhase.UPLOADING:
                participation.upload_seconds = at - since

    def refusal(self, client_id: str) -> str | None:
        """Why an update of this client must not be taken in now; None if it may be."""
        participation = self.participations.get(client_id)
        if participation is None:
            return "This client was not selected for the round."
        if participation.outcome is Outcome.COMPLETED:
            return "An update of this client has been counted already."
        if self.phase is not RoundPhase.FITTING or participation.outcome is not Outcome.PENDING:
            return "The round was closed before the update arrived."
        return None

    def _on_update(self, event: UpdateArrived) -> list[Action]:
        if self.refusal(event.client_id):
            return []
        participation = self.participations[event.client_id]
        self._close_phase(participation, event.at)
        participation.outcome = Outcome.COMPLETED
        participation.num_examples = event.num_examples
        participation.metrics = event.metrics
        participation.update_sha256 = event.sha256
        return self._close_if_settled()

    def _on_evaluation(self, event: EvaluationArrived) -> list[Action]:
        if self.phase is not RoundPhase.EVALUATING or event.client_id not in self._evaluating:
            return []
        participation = self.participations[event.client_id]
        participation.evaluation_loss = event.loss
        participation.evaluation_num_examples = event.num_examples
        participation.evaluation_metrics = event.metrics
        return self._evaluation_ended(event.client_id)

    def _on_client_ended(self, event: ClientEnded) -> list[Action]:
        if self.phase is RoundPhase.EVALUATING:
            return self._evaluation_ended(event.client_id)
        participation = self.participations.get(event.client_id)
        if self.phase is not RoundPhase.FITTING or not participation or participation.outcome is not Outcome.PENDING:
            return []
        self._close_phase(participation, event.at)
        self._end([event.client_id], event.outcome, event.reason)
        return [*self._replace(event.client_id, event.at), *self._close_if_settled()]

    def _on_own_deadline(self, event: OwnDeadlinePassed) -> list[Action]:
        if not self.can_spare(event):
            return []
        cancel = Cancel((event.client_id,), event.reason, late=True)
        return [cancel, *self._on_client_ended(ClientEnded(event.at, event.client_id, Outcome.LATE, event.reason))]

    def can_spare(self, event: OwnDeadlinePassed) -> bool:
        """Whether the round goes on without the client. One that it can't do without has the time that the round has."""
        if self.phase is not RoundPhase.FITTING or event.client_id not in self.pending:
            return False
        left = self.received + len(self.pending) - 1
        return left >= self._quorum or self._next_of_reserve(event.at) is not None

    def _replace(self, client_id: str, at: float) -> list[Action]:
        if self.received + len(self.pending) >= self._wanted or (chosen := self._next_of_reserve(at)) is None:
            return []
        self._reserve.remove(chosen)
        self.participations[chosen] = ParticipationReport(chosen, replaces=client_id)
        self._entered[chosen] = (ClientPhase.DOWNLOADING, at)
        return [SendFit((chosen,))]

    def _next_of_reserve(self, at: float) -> str | None:
        left = self._deadline_seconds if self._clock_stands else self._due_at - at
        for client in self._reserve:
            there = self._available is None or client in self._available
            if there and self._usual_seconds.get(client, self._deadline_seconds / 2) <= left:
                return client
        return None

    def _evaluation_ended(self, client_id: str) -> list[Action]:
        self._busy.discard(client_id)
        self._evaluating.discard(client_id)
        return [] if self._evaluating else self._finish(evaluated=True)

    def _close_if_settled(self) -> list[Action]:
        if self.received + len(self.pending) < self._quorum:
            return self._abandon(
                f"Only {self.received + len(self.pending)} of {self._quorum} updates were still possible."
            )
        if not self.pending:
            return self._aggregate("all clients answered")
        return self._close_early() if self.received >= self._wanted else []

    def _close_early(self) -> list[Action]:
        """Enough have answered of more than enough that were asked."""
        spared, reason = self.pending, "The round has the updates it wanted."
        self._end(spared, Outcome.CANCELLED, reason)
        return [Cancel(spared, reason), *self._aggregate("enough clients answered")]

    def _on_deadline(self) -> list[Action]:
        if self.phase is RoundPhase.EVALUATING:
            late = self.pending
            return [Cancel(late, "The evaluation's deadline has passed."), *self._finish(evaluated=True)]
        if self.phase is not RoundPhase.FITTING:
            return []
        if self._clock_stands:
            return self._abandon(
                f"Only {self._in_hand} of {self._needed} clients became free of other runs within {self._wait_seconds:g} s."
            )
        late = self.pending
        busy = [client for client in late if client in self._busy]
        self._end(late, Outcome.LATE, f"No update within {self._deadline_seconds:g} s.")
        self._end(busy, Outcome.LATE, "It was busy in other runs until the deadline.")
        cancel = Cancel(late, "The round's deadline has passed.", late=True)
        if self.received < self._quorum:
            reason = f"The deadline passed with {self.received} updates; the quorum is {self._quorum}."
            return [cancel, *self._abandon(reason)]
        return [cancel, *self._aggregate("deadline")]

    def _on_committed(self, event: Committed) -> list[Action]:
        if not self._evaluate:
            return self._finish(evaluated=False)
        self.phase = RoundPhase.EVALUATING
        self._evaluating = set(self.completed)
        return [SendEvaluate(self.completed), self._set_deadline(event.at)]

    def _on_stop(self, reason: str) -> list[Action]:
        match self.phase:
            case RoundPhase.FITTING:
                return self._abandon(reason)
            case RoundPhase.AGGREGATING:
                self._evaluate = False  # the commit goes through; nothing is begun after it
                return []
            case RoundPhase.EVALUATING:
                return [Cancel(self.pending, reason), *self._finish(evaluated=True)]
            case RoundPhase.DONE:
                return []

    def _aggregate(self, cause: str) -> list[Action]:
        self._busy.clear()
        self._clock_stands = False
        self.phase = RoundPhase.AGGREGATING
        return [Aggregate(cause)]

    def _abandon(self, reason: str) -> list[Action]:
        open_clients = self.pending
        self._end(open_clients, Outcome.CANCELLED, reason)
        self.phase = RoundPhase.DONE
        return [*([Cancel(open_clients, reason)] if open_clients else []), Abandon(reason)]

    def _finish(self, *, evaluated: bool) -> list[Action]:
        self.phase = RoundPhase.DONE
        return [Finish(evaluated)]

    def _end(self, client_ids: Iterable[str], outcome: Outcome, reason: str) -> None:
        for client_id in client_ids:
            self.participations[client_id].outcome = outcome
            self.participations[client_id].reason = reason
            self._busy.discard(client_id)
