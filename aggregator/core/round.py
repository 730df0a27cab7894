"""The state machine of one attempt at a round: events in, actions out, no I/O and no clock of its own.

    FITTING ──all answered, or deadline with quorum──▶ AGGREGATING ──Committed──▶ EVALUATING ──all answered, or deadline──▶ DONE
       └──────quorum out of reach, stop──────────────▶ DONE (abandoned)

Each event carries the time at which it happened, in seconds on any monotonic clock. The driver (`aggregator.driver`) carries the actions
out; a simulation can feed the same machine from virtual clients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from protos.convert import Scalars


class RoundPhase(StrEnum):
    FITTING = "fitting"
    AGGREGATING = "aggregating"
    EVALUATING = "evaluating"
    DONE = "done"


class ClientPhase(StrEnum):
    DOWNLOADING = "downloading"
    TRAINING = "training"
    UPLOADING = "uploading"
    EVALUATING = "evaluating"


class Outcome(StrEnum):
    """How a client's part in the round ended."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"
    LOST = "lost"
    LATE = "late"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class ParticipationReport:
    """One client in the round. Durations in seconds of the server's clock."""

    client_id: str
    outcome: Outcome = Outcome.PENDING
    reason: str = ""
    download_seconds: float | None = None
    train_seconds: float | None = None
    upload_seconds: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    num_examples: int | None = None
    metrics: Scalars = field(default_factory=dict)
    update_sha256: str = ""
    staleness: int = 0
    """Rounds since the client was asked, which happens in a buffered run alone."""
    update_norm: float | None = None
    """L2 of the step from the global model, over all floating tensors; None also where it is beyond float32."""
    update_largest: float | None = None
    """Size of the step's largest coordinate."""
    update_sketch: bytes = b""
    """Packed, by `aggregator.core.statistics`."""
    norm_ratio: float | None = None
    """This and what follows of a round that has been aggregated: see `aggregator.core.statistics.ClientStatistics`."""
    cosine_to_aggregate: float | None = None
    z_norm: float | None = None
    z_cosine: float | None = None
    flagged: bool = False
    flag_reason: str = ""
    evaluation_loss: float | None = None
    evaluation_num_examples: int | None = None
    evaluation_metrics: Scalars = field(default_factory=dict)


# --- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    at: float
    client_id: str
    phase: ClientPhase


@dataclass(frozen=True, slots=True)
class UpdateArrived:
    """A whole update has been taken into the accumulator. Ask `RoundMachine.refusal` first."""

    at: float
    client_id: str
    num_examples: int
    metrics: Scalars
    sha256: str


@dataclass(frozen=True, slots=True)
class EvaluationArrived:
    at: float
    client_id: str
    loss: float
    num_examples: int
    metrics: Scalars


@dataclass(frozen=True, slots=True)
class ClientEnded:
    """The client will not deliver: it failed, refused, was lost, or its update was rejected."""

    at: float
    client_id: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    at: float


@dataclass(frozen=True, slots=True)
class Committed:
    at: float


@dataclass(frozen=True, slots=True)
class AggregationBroke:
    """The strategy could not make a model of the updates, or has shown before that it never will."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    at: float
    reason: str = "The run was stopped."


@dataclass(frozen=True, slots=True)
class ClientsChanged:
    """These are the clients that could be asked now. A round with a cohort has chosen already."""

    at: float
    eligible: frozenset[str]


RoundEvent = (
    PhaseEntered
    | UpdateArrived
    | EvaluationArrived
    | ClientEnded
    | DeadlinePassed
    | Committed
    | AggregationBroke
    | StopRequested
    | ClientsChanged
)


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendFit:
    client_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SendEvaluate:
    client_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetDeadline:
    seconds: float


@dataclass(frozen=True, slots=True)
class Cancel:
    client_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Finish the accumulator, write the checkpoint, commit; answer with `Committed`."""

    cause: str


@dataclass(frozen=True, slots=True)
class Abandon:
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The round is over; `evaluated` says whether clients measured its model."""

    evaluated: bool


Action = SendFit | SendEvaluate | SetDeadline | Cancel | Aggregate | Abandon | Finish


class RoundMachine:
    """One attempt at a round. `start` first, then `handle` each event in the order in which they happened."""

    def __init__(
        self, cohort: Sequence[str], *, wanted: int, quorum: int, deadline_seconds: float, evaluate: bool
    ) -> None:
        """The round closes with the `wanted`-th update, or with fewer, but no fewer than `quorum`, at its deadline."""
        self.phase = RoundPhase.FITTING
        self.participations = {client: ParticipationReport(client) for client in cohort}
        self._wanted = wanted
        self._quorum = quorum
        self._deadline_seconds = deadline_seconds
        self._evaluate = evaluate
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

    def start(self, at: float) -> list[Action]:
        self._entered = dict.fromkeys(self.participations, (ClientPhase.DOWNLOADING, at))
        return [SendFit(tuple(self.participations)), SetDeadline(self._deadline_seconds)]

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
            case DeadlinePassed():
                return self._on_deadline()
            case Committed():
                return self._on_committed()
            case AggregationBroke():
                return self._abandon(event.reason) if self.phase in (RoundPhase.FITTING, RoundPhase.AGGREGATING) else []
            case StopRequested():
                return self._on_stop(event.reason)
            case ClientsChanged():
                return self._on_clients_changed(event)

    def _on_clients_changed(self, event: ClientsChanged) -> list[Action]:
        return []

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
        return self._close_if_settled()

    def _evaluation_ended(self, client_id: str) -> list[Action]:
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
        late = self.pending
        self._end(late, Outcome.LATE, f"No update within {self._deadline_seconds:g} s.")
        if self.received < self._quorum:
            reason = f"The deadline passed with {self.received} updates; the quorum is {self._quorum}."
            return [Cancel(late, "The round's deadline has passed."), *self._abandon(reason)]
        return [Cancel(late, "The round's deadline has passed."), *self._aggregate("deadline")]

    def _on_committed(self) -> list[Action]:
        if not self._evaluate:
            return self._finish(evaluated=False)
        self.phase = RoundPhase.EVALUATING
        self._evaluating = set(self.completed)
        return [SendEvaluate(self.completed), SetDeadline(self._deadline_seconds)]

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
