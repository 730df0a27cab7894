"""Who is connected, and what each client has been asked to do.

The hub joins the two sides of the engine: servicers bring what agents say, drivers of runs hand out assignments. It lives
on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from aggregator.ports import AgentInfo, ClientIdentity, ClientRegistry, DataCard, Sign, Vitals
from aggregator.sharing import Sharing
from protos import limits
from protos.encodings import PLAIN, Encoding
from protos.fedui.v1 import fleet_pb2, task_pb2
from protos.tensors import Signature

logger = logging.getLogger(__name__)


FindSettled = Callable[[ClientIdentity, Collection[str]], Awaitable[Mapping[str, int | None]]]
"""As `RunStore.settled`."""


class UpdateRefused(Exception):
    """The update can't be taken in; the text is for the owner of the client. Sending it again would change nothing."""


class TooLate(UpdateRefused):
    """The task was closed at its deadline, so many seconds ago."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(f"Too late by {seconds:.1f} s. {reason}")
        self.seconds = seconds


class Listener(Protocol):
    """A driver, as the hub sees it: told what comes of the assignments it made."""

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None: ...

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None: ...

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None: ...

    def on_lost(self, assignment: Assignment) -> None: ...

    def on_handed(self, assignment: Assignment) -> None:
        """The client, which was busy when the task was assigned, has been given it."""
        ...

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        """Returns when the update is part of the round. Raises `UpdateRefused`."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """Steps of a local training, of those that the whole one has."""

    done: int
    planned: int

    @property
    def is_partial(self) -> bool:
        return self.done < self.planned


@dataclass(frozen=True, slots=True)
class Update:
    """A whole upload, its hash checked, not yet looked at. `buffer` is unpacked."""

    buffer: memoryview
    signature: Signature
    sha256: str
    num_examples: int
    metrics: Mapping[str, bool | int | float | str | bytes]
    encoding: Encoding = PLAIN
    packed_size: int | None = None
    work: Work | None = None

    @property
    def bytes_on_the_wire(self) -> int:
        return len(self.buffer) if self.packed_size is None else self.packed_size


@dataclass(slots=True, eq=False)
class Assignment:
    """A task for one client, from its making until it is done or cancelled. `model` is shared by the whole cohort.

    `largest_update` is what a model of the run may have in bytes: nothing larger is taken in.
    """

    client_id: str
    task: task_pb2.Task
    listener: Listener
    model: bytes | bytearray = b""
    packed_model: bytes | bytearray = b""
    largest_update: int = limits.MAX_MODEL_BYTES
    bytes_down: int = 0
    refusals: int = 0
    """Of uploads for it."""
    federation_id: str = ""

    @property
    def task_id(self) -> str:
        return self.task.task_id

    @property
    def run_id(self) -> str:
        return self.task.run_id

    @property
    def uploads(self) -> bool:
        return self.task.kind in (task_pb2.TASK_KIND_FIT, task_pb2.TASK_KIND_INITIALISE)

    def forget_model(self) -> None:
        """Nobody needs it any more, and others may be waiting for its memory."""
        self.model = self.packed_model = b""


@dataclass(slots=True, eq=False)
class Session:
    """One connected agent. None in the outbox ends the stream."""

    client: ClientIdentity
    info: AgentInfo
    expires_at: datetime
    outbox: asyncio.Queue[fleet_pb2.ServerMessage | None] = field(default_factory=asyncio.Queue)
    joined_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    session_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    heard_at: float = field(default_factory=time.monotonic)
    """When it last gave a sign of life: by the clock that nobody sets."""
    vitals: Vitals = field(default_factory=dict)
    new_cards: tuple[DataCard, ...] | None = None
    new_sign: bool = False
    unanswered: int = 0
    """Heartbeats since the last answer: one is enough for all, for a peer that doesn't read."""
    beat_at: float = 0.0
    """When the last one came, in seconds since 1970."""
    ending: bool = False
    dismissed: bool = False
    """Told not to come back: nothing is to be expected of it."""
    left: bool = False
    """It said that it ends."""

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self.heard_at

    def take_sign(self) -> Sign:
        """What is to be written of it, once."""
        sign = Sign(self.client.client_id, self.session_id, self.silence, self.vitals, self.new_cards)
        self.new_sign, self.new_cards = False, None
        return sign

    def send(self, message: fleet_pb2.ServerMessage) -> None:
        self.outbox.put_nowait(message)

    def acknowledge(self, received_at: float) -> None:
        self.unanswered, self.beat_at = self.unanswered + 1, received_at
        if self.unanswered == 1:
            self.send(fleet_pb2.ServerMessage(heartbeat_ack=fleet_pb2.HeartbeatAck()))

    def fill(self, ack: fleet_pb2.HeartbeatAck, now: float) -> None:
        """The answer leaves now."""
        ack.heartbeats, ack.received_at, ack.answered_at = self.unanswered, self.beat_at, now
        self.unanswered = 0

    def end(self, reason: str, *, come_back: bool, after_seconds: float = 1.0) -> None:
        """Once; the first reason counts."""
        if self.ending:
            return
        self.ending, self.dismissed = True, not come_back
        goodbye = fleet_pb2.Goodbye(reason=reason, reconnect_after_seconds=after_seconds if come_back else -1.0)
        self.send(fleet_pb2.ServerMessage(goodbye=goodbye))
        self.outbox.put_nowait(None)


@dataclass(slots=True)
class Missed:
    """A task that was closed at its deadline. Holds no model: it is kept while clients may still ask about it."""

    client_id: str
    run_id: str
    reason: str
    at: float
    told: Callable[[float], None]
    """Is called once, with the seconds by which the client was late, when it is heard of."""


KEPT_MISSED = 4_096


class Hub:
    """`lost_after_seconds`: how long a client with work may be away before its driver is told that it is lost."""

    def __init__(
        self,
        registry: ClientRegistry,
        *,
        heartbeat_seconds: float,
        lost_after_seconds: float,
        find_settled: FindSettled | None = None,
    ) -> None:
        self.heartbeat_seconds = heartbeat_seconds
        self._registry = registry
        self._find_settled = find_settled
        self._lost_after_seconds = lost_after_seconds
        self.complete_at = time.monotonic() + lost_after_seconds
        """By then the clients of a restarted server are back; who isn't counts as lost."""
        self._sessions: dict[str, Session] = {}
        self._assignments: dict[str, Assignment] = {}
        self._sharing = Sharing[Assignment]()
        self._missed: dict[str, Missed] = {}
        self._absences: dict[str, asyncio.TimerHandle] = {}
        self._changed = asyncio.Event()
        self._servers: tuple[str, ...] = ()

    # --- sessions, called by the Fleet servicer ---------------------------------------------------------------------

    async def join(
        self, client: ClientIdentity, info: AgentInfo, expires_at: datetime, in_hand: Collection[str]
    ) -> Session:
        """A client has connected. It is given what it was asked to do and doesn't have in hand."""
        if older := self._sessions.pop(client.client_id, None):
            older.end("Another agent has connected with this identity.", come_back=False)
        session = self._sessions[client.client_id] = Session(client, info, expires_at)
        try:
            await self._registry.connected(client.client_id, session.session_id, info)
        except BaseException:  # also when the stream ends meanwhile: nobody else would ever take it out again
            await asyncio.shield(self.leave(session))
            raise
        if self._servers:
            session.send(_servers(self._servers))
        if absence := self._absences.pop(client.client_id, None):
            absence.cancel()
        for assignment in self._assignments_of(client.client_id):
            if assignment.task_id not in in_hand and self._sharing.is_in_hand(assignment):
                session.send(fleet_pb2.ServerMessage(task=assignment.task))
        self._hand_out(client.client_id)
        self._notify()
        return session

    async def tell_settled(self, session: Session, run_ids: Collection[str]) -> None:
        """Answer an agent that has kept updates of these runs, which of them it need keep no longer."""
        if not run_ids or self._find_settled is None:
            return
        try:
            settled = await self._find_settled(session.client, run_ids)
        except Exception:  # it keeps them, and asks again
            logger.exception("What is settled can't be told", extra={"client_id": session.client.client_id})
            return
        for run_id, through_round in settled.items():
            session.send(_settled(run_id, through_round))

    async def leave(self, session: Session) -> None:
        client_id = session.client.client_id
        if self._sessions.get(client_id) is not session:
            return
        del self._sessions[client_id]
        if session.dismissed:
            self._give_up(client_id)
        elif self._assignments_of(client_id):  # one that has left may be back in a moment: a restart, an update
            self._start_absence(client_id)
        self._notify()
        left = session.left or session.dismissed
        await self._registry.disconnected(client_id, session.session_id, left=left)

    async def change_availability(self, session: Session, unavailable: str) -> None:
        """The agent takes no tasks from now on, or takes them again. What it has in hand it answers by itself."""
        if session.info.unavailable == unavailable:
            return
        session.info = replace(session.info, unavailable=unavailable)
        self._notify()
        if self._sessions.get(session.client.client_id) is session:
            await self._registry.availability(session.client.client_id, session.session_id, unavailable)

    def hear(self, session: Session, vitals: Vitals | None = None, cards: tuple[DataCard, ...] | None = None) -> None:
        """Any message is a sign of life; only heartbeats bring new figures."""
        session.heard_at, session.new_sign = time.monotonic(), True
        if vitals is not None:
            session.vitals = vitals
        if cards is not None:
            session.new_cards = cards

    def receive_progress(self, session: Session, progress: task_pb2.Progress) -> None:
        if assignment := self._owned(session.client.client_id, progress.task_id):
            assignment.listener.on_phase(assignment, progress.phase)
            assignment.listener.on_progress(assignment, progress)

    def receive_result(self, session: Session, result: task_pb2.TaskResult) -> None:
        if (assignment := self._owned(session.client.client_id, result.task_id)) is None:
            self.lateness(session.client.client_id, result.task_id)
        else:
            del self._assignments[result.task_id]
            assignment.listener.on_result(assignment, result)
            self.release(assignment)

    async def watch(self) -> None:
        """Once a heartbeat: write the signs of life in bulk, and end sessions that are silent or whose certificate has expired."""
        while True:
            await asyncio.sleep(self.heartbeat_seconds)
            try:
                await self.report_signs()
            except Exception:
                logger.exception("Signs of life could not be written; trying again")
            now = datetime.now(UTC)
            for session in list(self._sessions.values()):
                if session.expires_at <= now:
                    session.end("The certificate that this stream was opened with has expired.", come_back=True)
                elif session.silence > 3 * self.heartbeat_seconds:
                    session.end("No heartbeat arrived.", come_back=True)

    async def report_signs(self) -> None:
        """One write for all that gave a sign. Whose client is connected to another engine is ended: it has moved on."""
        fresh = [session for session in self._sessions.values() if session.new_sign]
        if not fresh:
            return
        signs = [session.take_sign() for session in fresh]
        try:
            newest = set(await self._registry.seen(signs))
        except Exception:
            for session, sign in zip(fresh, signs, strict=True):
                session.new_sign, session.new_cards = True, session.new_cards or sign.cards
            raise
        for session in fresh:
            if session.client.client_id not in newest and not session.ending:
                session.end("This client has connected to another server of the federation.", come_back=False)

    def evict(self, client_id: str, reason: str, *, joined_before: datetime, come_back: bool) -> None:
        """End a client's session, unless it is newer."""
        session = self._sessions.get(client_id)
        if session and session.joined_at <= joined_before and not session.ending:
            session.end(reason, come_back=come_back)

    def prolong(self, client_id: str, expires_at: datetime) -> None:
        """The client has renewed its certificate: its stream may outlive the one that it was opened with."""
        if session := self._sessions.get(client_id):
            session.expires_at = max(session.expires_at, expires_at)

    def announce(self, servers: tuple[str, ...]) -> None:
        """Tell agents where to look for a server; who connects later is told then."""
        if servers == self._servers:
            return
        self._servers = servers
        for session in self._sessions.values():
            session.send(_servers(servers))

    def end_all(self, reason: str, per_second: float) -> None:
        """Each is told another moment at which to come again, so that about `per_second` come at a time."""
        for place, session in enumerate(self._sessions.values()):
            session.end(reason, come_back=True, after_seconds=1 + place / per_second)

    # --- assignments, called by drivers and the Transfer servicer ---------------------------------------------------

    def eligible(
        self, federation_id: str, app: str, version: str, signature: Signature, least_minor: int = 0
    ) -> dict[str, ClientIdentity]:
        """Connected clients of the federation that take tasks, offer this very app and speak the protocol's minor version
        `least_minor`, or newer."""
        return {
            client_id: session.client
            for client_id, session in self._sessions.items()
            if not session.info.unavailable
            and session.info.protocol_minor >= least_minor
            and _trains(session, federation_id, app, version, signature)
        }

    def unavailable(self, federation_id: str, app: str, version: str, signature: Signature) -> dict[str, str]:
        """Why connected clients that would be eligible take no tasks now, by their names."""
        return {
            session.client.name: session.info.unavailable
            for session in self._sessions.values()
            if session.info.unavailable and _trains(session, federation_id, app, version, signature)
        }

    def offering(self, federation_id: str, app: str, version: str, column: str) -> dict[str, ClientIdentity]:
        """Connected clients of the federation that take tasks and whose app of this name and version opens the column to queries."""
        return {
            client_id: session.client
            for client_id, session in self._sessions.items()
            if session.client.federation_id == federation_id
            and not session.info.unavailable
            and any(o.name == app and o.version == version and column in o.columns for o in session.info.apps)
        }

    @property
    def changed(self) -> asyncio.Event:
        """Set when the next client comes or goes. Read it before looking at who is there, so as to miss nothing."""
        return self._changed

    def assign(self, assignment: Assignment) -> bool:
        """Whether the client is given the task at once. Else it is busy, and the task waits for its turn: see `sharing`."""
        self._assignments[assignment.task_id] = assignment
        self._sharing.add(assignment)
        if assignment.client_id not in self._sessions:
            self._start_absence(assignment.client_id)
        self._hand_out(assignment.client_id, just_assigned=assignment)
        return self._sharing.is_in_hand(assignment)

    def at_work_for(self, client_id: str) -> list[str]:
        """Ids of the runs, and of queries as `query-<id>`, whose tasks the client has in hand."""
        return self._sharing.at_work_for(client_id)

    def waits(self, assignment: Assignment) -> bool:
        """It is open, and the client has not been given it."""
        return assignment.task_id in self._assignments and not self._sharing.is_in_hand(assignment)

    def release(self, assignment: Assignment) -> None:
        """The client works on the assignment no more, though it may still ask about it."""
        if self._sharing.release(assignment):
            self._hand_out(assignment.client_id)

    def withdraw(self, assignment: Assignment) -> None:
        """Forget an assignment: the client has done its part."""
        self._assignments.pop(assignment.task_id, None)
        assignment.forget_model()
        self.release(assignment)

    def cancel(self, assignment: Assignment, reason: str) -> None:
        """Forget an assignment, and tell the client to stop working on it."""
        if (session := self._sessions.get(assignment.client_id)) and self._sharing.is_in_hand(assignment):
            cancel = fleet_pb2.CancelTask(task_id=assignment.task_id, reason=reason)
            session.send(fleet_pb2.ServerMessage(cancel=cancel))
        self.withdraw(assignment)

    def close_late(self, assignment: Assignment, reason: str, told: Callable[[float], None]) -> None:
        """`cancel` a task whose deadline has passed. What the client still says of it is answered by how late it is."""
        if assignment.task_id not in self._assignments:
            return
        missed = Missed(assignment.client_id, assignment.run_id, reason, time.monotonic(), told)
        self._missed[assignment.task_id] = missed
        if len(self._missed) > KEPT_MISSED:
            del self._missed[next(iter(self._missed))]
        self.cancel(assignment, reason)

    def lateness(self, client_id: str, task_id: str) -> TooLate | None:
        """Why nothing is taken for the task any more; None if it isn't for being late."""
        missed = self._missed.get(task_id)
        if missed is None or missed.client_id != client_id:
            return None
        seconds = time.monotonic() - missed.at
        told, missed.told = missed.told, _nobody
        told(seconds)
        return TooLate(missed.reason, seconds)

    def settle(self, client_id: str, run_id: str, through_round: int | None) -> None:
        """The client need keep none of its updates for the run up to this round, or None for all. If it isn't connected now, it asks."""
        if session := self._sessions.get(client_id):
            session.send(_settled(run_id, through_round))

    def forget_run(self, run_id: str) -> None:
        """The run has ended: nobody is told any more of what comes for it. Clients still get their answer."""
        for missed in self._missed.values():
            if missed.run_id == run_id:
                missed.told = _nobody

    def ask_to_finish(self, assignment: Assignment, reason: str) -> bool:
        """Have the client end its training and send what it has. False if its agent doesn't know how, or it isn't there."""
        session = self._sessions.get(assignment.client_id)
        if session is None or session.info.protocol_minor < limits.PARTIAL_MINOR or self.waits(assignment):
            return False
        cancel = fleet_pb2.CancelTask(task_id=assignment.task_id, reason=reason, finish=True)
        session.send(fleet_pb2.ServerMessage(cancel=cancel))
        return True

    def fail(self, assignment: Assignment, reason: str) -> None:
        """Close an assignment that its client can't be trusted with."""
        result = task_pb2.TaskResult(
            task_id=assignment.task.task_id,
            outcome=task_pb2.TASK_OUTCOME_FAILED,
            reason=reason[: limits.MAX_REASON_LENGTH],
        )
        if self._assignments.pop(result.task_id, None):
            assignment.listener.on_result(assignment, result)
            self.release(assignment)

    def assignment_of(self, client_id: str, task_id: str) -> Assignment | None:
        """The open assignment, if it is this client's."""
        return self._owned(client_id, task_id)

    def open_tasks(self) -> set[str]:
        return set(self._assignments)

    def _owned(self, client_id: str, task_id: str) -> Assignment | None:
        assignment = self._assignments.get(task_id)
        return assignment if assignment and assignment.client_id == client_id else None

    def _assignments_of(self, client_id: str) -> list[Assignment]:
        return [a for a in self._assignments.values() if a.client_id == client_id]

    def _start_absence(self, client_id: str) -> None:
        if client_id not in self._absences:
            loop = asyncio.get_running_loop()
            self._absences[client_id] = loop.call_later(self._lost_after_seconds, self._give_up, client_id)

    def _give_up(self, client_id: str) -> None:
        if absence := self._absences.pop(client_id, None):
            absence.cancel()
        for assignment in self._assignments_of(client_id):
            del self._assignments[assignment.task_id]
            self._sharing.release(assignment)
            assignment.listener.on_lost(assignment)

    def _hand_out(self, client_id: str, just_assigned: Assignment | None = None) -> None:
        session = self._sessions.get(client_id)
        while assignment := self._sharing.next_for(client_id, session.info.max_tasks if session else 1):
            if session:
                session.send(fleet_pb2.ServerMessage(task=assignment.task))
            if assignment is not just_assigned:
                assignment.listener.on_handed(assignment)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _servers(addresses: tuple[str, ...]) -> fleet_pb2.ServerMessage:
    return fleet_pb2.ServerMessage(servers=fleet_pb2.Servers(addresses=addresses))


def _settled(run_id: str, through_round: int | None) -> fleet_pb2.ServerMessage:
    whole = through_round is None
    settled = fleet_pb2.Settled(run_id=run_id, through_round=through_round or 0, whole_run=whole)
    return fleet_pb2.ServerMessage(settled=settled)


def _nobody(seconds: float) -> None:
    """It has been told."""


def _trains(session: Session, federation_id: str, app: str, version: str, signature: Signature) -> bool:
    return session.client.federation_id == federation_id and any(
        o.name == app and o.version == version and o.signature == signature for o in session.info.apps
    )
