"""The engine's ports in memory: for tests, benchmarks and notebooks. Nothing outlives the process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from aggregator.core.cohort import Attendance
from aggregator.core.history import Pace
from aggregator.core.modes import Buffered
from aggregator.core.round import Outcome
from aggregator.ports import (
    AgentInfo,
    Barred,
    ClientIdentity,
    ClientRefused,
    Directive,
    Ending,
    Event,
    Lease,
    LeaseLost,
    MetricRecord,
    ModelRecord,
    Origin,
    QueryLease,
    QueryOutcome,
    QuerySpec,
    Renewal,
    RenewalRefused,
    RoundRecord,
    RunOutcome,
    RunSpec,
    RunState,
    Sign,
)
from protos.tensors import Parameters

FULL = 100
"""Per cent that a client counts for, unless an operator has ordered otherwise."""


@dataclass(slots=True)
class StoredRun:
    spec: RunSpec
    fencing: int = 0
    held: bool = False
    directive: Directive = Directive.GO_ON
    outcome: RunOutcome | None = None
    reason: str = ""
    paused: bool = False
    origin: Origin | None = None
    wanted_rounds: int = 0
    """More than the engine was told to do, if the run has been extended meanwhile."""
    models: dict[int, ModelRecord] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    opened: dict[tuple[int, int], Mapping[str, int]] = field(default_factory=dict)
    """By round and lease the weights that were read."""
    rounds: dict[tuple[int, int], RoundRecord] = field(default_factory=dict)
    abandoned: dict[tuple[int, int], str] = field(default_factory=dict)

    @property
    def rounds_done(self) -> int:
        return max(self.models, default=0)

    def deciding(self) -> dict[int, float]:
        wanted = (self.spec.strategy.stopping.source, self.spec.strategy.stopping.metric)
        return {
            number: metric.value
            for (number, _), record in self.rounds.items()
            for metric in record.metrics
            if (metric.source, metric.name) == wanted
        }

    def counted(self) -> dict[str, int]:
        records = [(n, record) for (n, _), record in self.rounds.items() if record.committed_at and n]
        return {
            p.client_id: n - p.staleness
            for n, record in sorted(records, key=lambda pair: pair[0])
            for p in record.participations
            if p.outcome is Outcome.COMPLETED
        }

    def attendance(self) -> dict[str, Attendance]:
        found: dict[str, Attendance] = {}
        for record in self.rounds.values():
            for report in record.participations:
                before = found.get(report.client_id, Attendance())
                found[report.client_id] = before.after(completed=report.outcome is Outcome.COMPLETED)
        return found

    def paces(self) -> dict[str, list[Pace]]:
        found: dict[str, list[Pace]] = {}
        for (number, _), record in sorted(self.rounds.items()):
            if not number:
                continue
            for p in record.participations:
                if p.outcome is Outcome.LATE:
                    found.pop(p.client_id, None)
                elif p.outcome is Outcome.COMPLETED:
                    pace = Pace(p.download_seconds or 0.0, p.train_seconds or 0.0, p.upload_seconds or 0.0)
                    found.setdefault(p.client_id, []).append(pace)
        return found

    def metrics(self, round_number: int) -> list[MetricRecord]:
        return [m for (number, _), record in self.rounds.items() if number == round_number for m in record.metrics]


class MemoryRunStore:
    def __init__(self) -> None:
        self.runs: dict[int, StoredRun] = {}
        self.last_events: dict[int, int] = {}

    def add(self, spec: RunSpec) -> StoredRun:
        self.runs[spec.run_id] = StoredRun(spec)
        return self.runs[spec.run_id]

    async def take_up(self, run_id: int, owner: str) -> RunState | None:
        run = self.runs[run_id]
        if run.held or run.outcome or run.paused:
            return None
        run.held, run.fencing = True, run.fencing + 1
        run.spec = replace(run.spec, num_rounds=max(run.spec.num_rounds, run.wanted_rounds))
        attempts = [attempt for number, attempt in run.rounds if number == run.rounds_done + 1]
        return RunState(
            spec=run.spec,
            lease=Lease(run_id, owner, run.fencing),
            model=run.models.get(run.rounds_done),
            last_attempt=max(attempts, default=0),
            last_event=self.last_events.get(run_id, 0),
            deciding=run.deciding(),
            counted=run.counted(),
            attendance=run.attendance(),
            paces=run.paces(),
            origin=run.origin,
        )

    async def renew(self, lease: Lease) -> Directive:
        return self._fence(lease).directive

    async def release(self, lease: Lease) -> None:
        self._fence(lease).held = False

    async def weights(self, lease: Lease, round_number: int) -> Mapping[str, int]:
        run = self._fence(lease)
        earlier = [
            w for (number, fencing), w in run.opened.items() if number == round_number and fencing != lease.fencing
        ]
        known = (
            earlier[-1] if earlier else {client: percent for client, percent in run.weights.items() if percent != FULL}
        )
        run.opened[round_number, lease.fencing] = known
        return known

    async def begin_round(self, lease: Lease, record: RoundRecord) -> None:
        self._fence(lease).rounds[record.number, record.attempt] = record

    async def commit_round(self, lease: Lease, record: RoundRecord, model: ModelRecord) -> None:
        run = self._fence(lease)
        run.rounds[record.number, record.attempt] = record
        run.models[record.number] = model

    async def abandon_round(self, lease: Lease, record: RoundRecord, reason: str) -> None:
        run = self._fence(lease)
        run.rounds[record.number, record.attempt] = record
        run.abandoned[record.number, record.attempt] = reason

    async def record_evaluation(self, lease: Lease, record: RoundRecord) -> None:
        self._fence(lease).rounds[record.number, record.attempt] = record

    async def pause(self, lease: Lease, reason: str) -> None:
        run = self._fence(lease)
        run.held, run.reason = False, reason
        run.paused = bool(reason) or run.directive is not Directive.GO_ON
        run.directive = Directive.GO_ON

    async def finish(self, lease: Lease, outcome: RunOutcome, reason: str, all_rounds: int | None = None) -> Ending:
        run = self._fence(lease)
        run.held = False
        if all_rounds is not None and run.wanted_rounds > all_rounds:
            return Ending.EXTENDED
        run.outcome, run.reason = outcome, reason
        return Ending.ENDED

    async def settled(self, client: ClientIdentity, run_ids: Collection[str]) -> Mapping[str, int | None]:
        settled: dict[str, int | None] = {}
        for run_id in run_ids:
            run = self.runs.get(int(run_id)) if run_id.isdecimal() else None
            if (
                run is None
                or run.spec.federation_id != client.federation_id
                or run.outcome not in (None, RunOutcome.FAILED)
            ):
                settled[run_id] = None
            elif run.models:
                buffered = isinstance(run.spec.strategy.mode, Buffered)
                settled[run_id] = run.counted().get(client.client_id, 0) if buffered else run.rounds_done
        return settled

    def _fence(self, lease: Lease) -> StoredRun:
        run = self.runs[lease.run_id]
        if run.fencing != lease.fencing:
            raise LeaseLost
        return run


@dataclass(slots=True)
class StoredQuery:
    spec: QuerySpec
    fencing: int = 0
    held: bool = False
    cancelled: bool = False
    outcome: QueryOutcome | None = None
    reason: str = ""
    result: Mapping[str, Any] | None = None


class MemoryQueryStore:
    def __init__(self) -> None:
        self.queries: dict[int, StoredQuery] = {}

    def add(self, spec: QuerySpec) -> StoredQuery:
        self.queries[spec.query_id] = StoredQuery(spec)
        return self.queries[spec.query_id]

    def cancel(self, query_id: int) -> None:
        query = self.queries[query_id]
        query.cancelled, query.held, query.fencing = True, False, query.fencing + 1

    async def take_up(self, query_id: int, owner: str) -> tuple[QuerySpec, QueryLease] | None:
        query = self.queries[query_id]
        if query.held or query.cancelled or query.outcome:
            return None
        query.held, query.fencing = True, query.fencing + 1
        return query.spec, QueryLease(query_id, owner, query.fencing)

    async def renew(self, lease: QueryLease) -> None:
        self._fence(lease)

    async def release(self, lease: QueryLease) -> None:
        self._fence(lease).held = False

    async def finish(
        self, lease: QueryLease, outcome: QueryOutcome, reason: str, result: Mapping[str, Any] | None
    ) -> None:
        query = self._fence(lease)
        query.outcome, query.reason, query.result, query.held = outcome, reason, result, False

    def _fence(self, lease: QueryLease) -> StoredQuery:
        query = self.queries[lease.query_id]
        if query.fencing != lease.fencing or not query.held:
            raise LeaseLost
        return query


class MemoryModelStore:
    def __init__(self) -> None:
        self.saved: dict[str, Parameters] = {}
        self.states: dict[str, Parameters] = {}

    async def save(
        self, run_id: int, round_number: int, parameters: Parameters, state: Parameters, manifest: Mapping[str, Any]
    ) -> ModelRecord:
        key = f"run-{run_id}/round-{round_number}"
        self.saved[key] = parameters
        self.states[key] = {name: array.copy() for name, array in state.items()}
        return ModelRecord(run_id, round_number, key, "", sum(array.nbytes for array in parameters.values()))

    async def load(self, record: ModelRecord) -> Parameters:
        return self.saved[record.key]

    async def load_state(self, record: ModelRecord) -> Parameters:
        return self.states[record.key]


class MemoryEventSink:
    def __init__(self) -> None:
        self.events: list[Event] = []

    async def write(self, lease: Lease, events: Sequence[Event]) -> None:
        self.events.extend(events)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class MemoryClientRegistry:
    """Knows the clients that were added, and what agents said of themselves."""

    def __init__(self) -> None:
        self.clients: dict[str, ClientIdentity] = {}
        self.refusals: dict[str, str] = {}
        self.online: dict[str, AgentInfo] = {}
        self.sessions: dict[str, str] = {}
        self.left: set[str] = set()
        """Whose agents said that they end."""
        self.signs: dict[str, Sign] = {}
        self.bars: list[Barred] = []
        self.certify: Callable[[str, str], Renewal] | None = None
        """Makes a certificate of a client's id and a signing request."""

    def add(self, client_id: str, federation_id: str = "tests", labels: Mapping[str, str] | None = None) -> None:
        self.clients[client_id] = ClientIdentity(client_id, f"site {client_id}", federation_id, labels or {})

    async def authenticate(self, client_id: str, certificate_serial: str) -> ClientIdentity:
        if client_id in self.refusals:
            raise ClientRefused(self.refusals[client_id])
        if client_id not in self.clients:
            raise ClientRefused("The server doesn't know this client.", for_good=True)
        return self.clients[client_id]

    async def barred(self, since: datetime) -> Sequence[Barred]:
        return [bar for bar in self.bars if bar.at > since]

    async def renew(self, client_id: str, certificate_serial: str, csr_pem: str) -> Renewal:
        if self.certify is None:
            raise RenewalRefused("This server renews no certificates.")
        return self.certify(client_id, csr_pem)

    async def connected(self, client_id: str, session_id: str, info: AgentInfo) -> None:
        self.online[client_id], self.sessions[client_id] = info, session_id
        self.left.discard(client_id)

    async def disconnected(self, client_id: str, session_id: str, *, left: bool) -> None:
        if self.sessions[client_id] == session_id:
            self.online.pop(client_id, None)
            if left:
                self.left.add(client_id)

    async def availability(self, client_id: str, session_id: str, unavailable: str) -> None:
        if self.sessions[client_id] == session_id:
            self.online[client_id] = replace(self.online[client_id], unavailable=unavailable)

    async def seen(self, signs: Sequence[Sign]) -> Collection[str]:
        newest = [sign for sign in signs if self.sessions[sign.client_id] == sign.session_id]
        self.signs.update({sign.client_id: sign for sign in newest})
        return [sign.client_id for sign in newest]
