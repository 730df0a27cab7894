"""The words of a round's state machine (`aggregator.core.round`): phases, reports, the events that it takes and its actions."""

from __future__ import annotations

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
    steps_done: int | None = None
    """Of the local training; fewer than planned where it was ended early. None where the agent didn't tell."""
    steps_planned: int | None = None
    metrics: Scalars = field(default_factory=dict)
    update_sha256: str = ""
    replaces: str = ""
    """The client in whose place this one was asked, after it had dropped out; empty in the first cohort."""
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
class OwnDeadlinePassed:
    """The client has taken longer than it usually does by far. The round may still have time for another one."""

    at: float
    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskWaits:
    """The client is busy in other runs, and will be given its task later: `TaskHanded`."""

    at: float
    client_id: str


@dataclass(frozen=True, slots=True)
class TaskHanded:
    at: float
    client_id: str


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
    """These are the clients that could be asked now. A round with a cohort has chosen already, but for who may replace whom."""

    at: float
    eligible: frozenset[str]


RoundEvent = (
    PhaseEntered
    | UpdateArrived
    | EvaluationArrived
    | ClientEnded
    | OwnDeadlinePassed
    | TaskWaits
    | TaskHanded
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
    late: bool = False
    """Their training has taken too long."""


@dataclass(frozen=True, slots=True)
class HoldClock:
    """The deadline stands still while clients are busy in other runs; their `SetDeadline` follows."""

    in_hand: int
    needed: int


@dataclass(frozen=True, slots=True)
class StartClock:
    """Enough have their task for the round to count: its deadline, which follows, runs from now on."""

    in_hand: int


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


Action = SendFit | SendEvaluate | SetDeadline | Cancel | HoldClock | StartClock | Aggregate | Abandon | Finish
