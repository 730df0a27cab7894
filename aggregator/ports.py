"""What the engine needs of the world, as small protocols. `fedui.runs.adapters` and friends implement them over the database;
tests and simulations bring their own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from aggregator.core.analytics import QueryConfig
from aggregator.core.cohort import Attendance
from aggregator.core.config import StrategyConfig
from aggregator.core.history import Pace
from aggregator.core.round import ParticipationReport
from protos.convert import Scalars
from protos.tensors import Parameters, Signature

# --- runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunSpec:
    """What a run is, fixed at its start."""

    run_id: int
    name: str
    federation_id: str
    app: str
    app_version: str
    signature: Signature
    strategy: StrategyConfig
    seed: int
    num_rounds: int


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A stored global model."""

    run_id: int
    round_number: int
    key: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The model of another run that a run begins with, and the strategy that made it."""

    run_name: str
    model: ModelRecord
    strategy: StrategyConfig


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to drive a run. Writes carry `fencing`; a store refuses those with an old number by `LeaseLost`."""

    run_id: int
    owner: str
    fencing: int


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands when an engine takes it up: `model` is the last committed one, None before the first.

    `deciding` holds the values so far, by round, of the metric that the strategy's stopping rule looks at. `attendance`
    counts for each client the attempts at rounds in which it was asked, whatever became of them, and those it completed.
    """

    spec: RunSpec
    lease: Lease
    model: ModelRecord | None
    last_attempt: int
    last_event: int
    deciding: Mapping[int, float] = field(default_factory=dict)
    counted: Mapping[str, int] = field(default_factory=dict)
    """Of each client the round in which it was asked for the update of its that was counted last."""
    attendance: Mapping[str, Attendance] = field(default_factory=dict)
    paces: Mapping[str, Sequence[Pace]] = field(default_factory=dict)
    """Of each client what its last completed parts took, the newest last, in runs of this app and strategy in the federation."""
    origin: Origin | None = None
    """None: the run begins with a model that a client makes."""


class Directive(StrEnum):
    """What the operator wants of a run, read with each renewal of the lease."""

    GO_ON = "go_on"
    PAUSE = "pause"
    """After the round in progress."""
    PAUSE_NOW = "pause_now"
    """Without it: its work is dropped."""
    STOP = "stop"


class LeaseLost(Exception):
    """Another engine owns the run now: write nothing more."""


class RunOutcome(StrEnum):
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class Ending(StrEnum):
    """What became of a run whose engine is done with it."""

    ENDED = "ended"
    RETRIED = "retried"
    """It has failed, and will be taken up again."""
    EXTENDED = "extended"
    """More rounds are wanted than when the engine took it up: it can be taken up again at once."""


@dataclass(frozen=True, slots=True)
class MetricRecord:
    source: str
    name: str
    value: float
    num_examples: int


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round as the store keeps it; written once at its start, at its commit or abandonment, and after its evaluation.

    `participations` are all there are: a later record may have more, and leave out who turned out to be no part of the round.
    """

    number: int
    attempt: int
    started_at: datetime
    closed_at: datetime | None = None
    committed_at: datetime | None = None
    ended_at: datetime | None = None
    participations: Sequence[ParticipationReport] = ()
    metrics: Sequence[MetricRecord] = ()


class RunStore(Protocol):
    """Runs, their leases and their rounds. Every method that takes a lease raises `LeaseLost` if it is no longer valid."""

    async def take_up(self, run_id: int, owner: str) -> RunState | None:
        """Take the lease of an active run that nobody holds; None if there is nothing to do or another engine holds it."""
        ...

    async def renew(self, lease: Lease) -> Directive: ...

    async def release(self, lease: Lease) -> None:
        """Give an unfinished run back, for another engine to take up at once."""
        ...

    async def weights(self, lease: Lease, round_number: int) -> Mapping[str, int]:
        """What clients count for in a round that is about to begin, in per cent, by id: 0 is excluded, and who isn't named counts in full.

        Reading them opens the round: what is ordered from now on counts for a later one, so that a round that is done again after a
        crash has the same weights. One that is opened again by the same lease had come to nothing, and takes in what was ordered since.
        """
        ...

    async def begin_round(self, lease: Lease, record: RoundRecord) -> None: ...

    async def commit_round(self, lease: Lease, record: RoundRecord, model: ModelRecord) -> None:
        """Round, participations, metrics and model in one transaction. `record.number` 0 is the initial model."""
        ...

    async def abandon_round(self, lease: Lease, record: RoundRecord, reason: str) -> None: ...

    async def record_evaluation(self, lease: Lease, record: RoundRecord) -> None: ...

    async def pause(self, lease: Lease, reason: str) -> None:
        """Let the run rest until somebody resumes it. With an empty reason it was the operator's wish, and one that they have
        taken back meanwhile leaves the run free for the next engine."""
        ...

    async def finish(self, lease: Lease, outcome: RunOutcome, reason: str, all_rounds: int | None = None) -> Ending:
        """`all_rounds`: a run that is complete for it has done so many; None: it ended for another reason."""
        ...

    async def settled(self, client: ClientIdentity, run_ids: Collection[str]) -> Mapping[str, int | None]:
        """Of each of the runs, as far as anything is settled: the round up to which the client will not be asked again for its
        updates, or None for the whole run. A run that is none, or none of the client's federation, is settled."""
        ...


class StoreUnavailable(Exception):
    """The model store can't be written or read now: its disk is full, or it can't be reached. The text is for the operator."""


class ModelStore(Protocol):
    """All methods raise `StoreUnavailable`."""

    async def save(
        self, run_id: int, round_number: int, parameters: Parameters, state: Parameters, manifest: Mapping[str, Any]
    ) -> ModelRecord:
        """Write the model, and the server optimiser's state after it, durably before returning."""
        ...

    async def load(self, record: ModelRecord) -> Parameters:
        """Raises `aggregator.checkpoints.CorruptCheckpoint` if the file isn't the one recorded."""
        ...

    async def load_state(self, record: ModelRecord) -> Parameters:
        """The state that was saved with the model. Raises as `load` does."""
        ...


# --- queries ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QuerySpec:
    """What a query is, fixed at its start."""

    query_id: int
    federation_id: str
    app: str
    app_version: str
    config: QueryConfig


@dataclass(frozen=True, slots=True)
class QueryLease:
    """The right to drive a query; like `Lease`."""

    query_id: int
    owner: str
    fencing: int


class QueryOutcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"


class QueryStore(Protocol):
    """Queries and their leases. A query that was taken up again begins anew: it holds nothing between its passes.

    Methods that take a lease raise `LeaseLost` if another engine has the query now, or it was cancelled.
    """

    async def take_up(self, query_id: int, owner: str) -> tuple[QuerySpec, QueryLease] | None:
        """Take the lease of an active query that nobody holds; None if there is nothing to do."""
        ...

    async def renew(self, lease: QueryLease) -> None: ...

    async def release(self, lease: QueryLease) -> None:
        """Give an unfinished query back, for another engine to take up at once."""
        ...

    async def finish(
        self, lease: QueryLease, outcome: QueryOutcome, reason: str, result: Mapping[str, Any] | None
    ) -> None: ...


# --- events ----------------------------------------------------------------------------------------------------------


class Level(StrEnum):
    INFO = "info"
    ROUND = "round"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run. `seq` counts from 1 without a gap."""

    run_id: int
    seq: int
    at: datetime
    kind: str
    level: Level
    message: str
    round_number: int | None = None
    client_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class EventsRefused(Exception):
    """Something in the events breaks a rule of the store: it will never take them as they are."""


class EventSink(Protocol):
    async def write(self, lease: Lease, events: Sequence[Event]) -> None:
        """Store events of one run for good, then publish them. Raises `LeaseLost` or `EventsRefused`, and then stores none."""
        ...


# --- clients ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """An enrolled client, as its certificate proves it."""

    client_id: str
    name: str
    federation_id: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class AppOffer:
    name: str
    version: str
    framework: str
    signature: Signature
    columns: tuple[str, ...] = ()
    """Open to queries."""


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What an agent's machine has; 0 and empty: not told."""

    cores: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True, slots=True)
class DataCard:
    """What an owner publishes of an app's data; None: not that. `labels`: counts of examples, in multiples of `label_floor`."""

    app: str
    app_version: str
    data_set: str
    examples: int | None = None
    features: int | None = None
    labels: tuple[tuple[str, int], ...] = ()
    label_floor: int = 0


Vitals = Mapping[str, float]
"""What a heartbeat tells, finite: agent_cpu, cpu, gpu (shares), agent_memory, memory_used, gpu_memory_used, disk_free (bytes), round_trip
(seconds), clock_skew (seconds that the agent's clock is ahead), up_rate, down_rate (bytes a second). What isn't told is left out."""
VITALS = (
    "agent_cpu", "cpu", "gpu", "agent_memory", "memory_used", "gpu_memory_used", "disk_free", "round_trip", "clock_skew", "up_rate",
    "down_rate",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """What an agent says of itself when it connects."""

    agent_version: str
    platform: str
    apps: Sequence[AppOffer]
    properties: Scalars
    protocol_minor: int = 0
    unavailable: str = ""
    """Why it takes no tasks now, in its owner's words; empty: it takes them."""
    max_tasks: int = 1
    """That it works on at once."""
    machine: Machine = Machine()
    cards: tuple[DataCard, ...] = ()


@dataclass(frozen=True, slots=True)
class Sign:
    """A client's last sign of life on one of its streams."""

    client_id: str
    session_id: str
    age_seconds: float
    """How long ago it came."""
    vitals: Vitals = field(default_factory=dict)
    """Of the last heartbeat; empty before the first."""
    cards: tuple[DataCard, ...] | None = None
    """Where they have changed."""


class ClientRefused(Exception):
    """The client may not connect: now, or with this certificate ever. The text is for its owner."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        super().__init__(reason)
        self.for_good = for_good


@dataclass(frozen=True, slots=True)
class Barred:
    """A client whose connections must end: all of them, or if it is `active` those with other certificates than `keep`."""

    client_id: str
    at: datetime
    reason: str
    active: bool
    may_return: bool
    """Whether its agent should try again by itself."""
    keep: frozenset[str] = frozenset()
    """Serial numbers of an active client's certificates that are not revoked."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """PEM: a new certificate, and all authorities that its holder should trust from now on."""

    certificate: str
    authorities: str


class RenewalRefused(Exception):
    """No certificate for this request. The text is for the client's owner."""


class ClientRegistry(Protocol):
    async def authenticate(self, client_id: str, certificate_serial: str) -> ClientIdentity:
        """Raises `ClientRefused` for a client that is unknown, suspended or revoked, or with a superseded certificate.

        The first use of a certificate supersedes those before it.
        """
        ...

    async def barred(self, since: datetime) -> Sequence[Barred]:
        """Who has been suspended, revoked, or moved to another machine after `since`."""
        ...

    async def renew(self, client_id: str, certificate_serial: str, csr_pem: str) -> Renewal:
        """A certificate for the key in the request, for a client that has been authenticated. Raises `RenewalRefused`."""
        ...

    async def connected(self, client_id: str, session_id: str, info: AgentInfo) -> None:
        """An agent has opened a stream, here. It takes the place of any other that the client had, on whatever engine."""
        ...

    async def disconnected(self, client_id: str, session_id: str, *, left: bool) -> None:
        """The stream has ended. `left`: on purpose, so that nothing is to be expected of the agent. Nothing if it is no longer the
        client's newest."""
        ...

    async def availability(self, client_id: str, session_id: str, unavailable: str) -> None:
        """A connected agent takes no tasks any more, for this reason; or takes them again, if it is empty."""
        ...

    async def seen(self, signs: Sequence[Sign]) -> Collection[str]:
        """Many signs of life in one write. Tells whose streams are their newest; the clients of the others are connected elsewhere."""
        ...


class Evaluator(Protocol):
    """Measures a global model on data that the server has. Raises nothing for a model of the right signature."""

    def __call__(self, parameters: Parameters) -> tuple[float, int, Mapping[str, float]]: ...
