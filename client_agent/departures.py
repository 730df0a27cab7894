"""The one way out of this machine: what is sent passes here, is stripped of what the owner keeps, and is listed before it leaves.

Heartbeats and progress are many: they are listed together, one entry for those of some time, with the SHA-256 of all their
bytes in the order in which they were sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from client_agent import cards, facts
from client_agent.errors import ConfigurationError
from client_agent.execution import Update
from client_agent.ledger import Ledger
from client_agent.policy import Leave, matches
from client_agent.state import now
from protos.fedui.v1 import fleet_pb2, identity_pb2, task_pb2, tensor_pb2

PROGRESS_SECONDS = 5.0
HEARTBEAT_SECONDS = 600.0
"""How long messages of a kind are gathered for one entry."""
KNOWN_TASKS = 256
SHOWN_CHARACTERS = 100
"""Of a text among the metrics of an entry; the hash is of the whole."""

ProtoScalars = MutableMapping[str, tensor_pb2.Scalar]


@dataclass(slots=True)
class _Gathered:
    """Messages that will be listed together."""

    about: Mapping[str, Any]
    begun: float
    messages: int = 0
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    metrics: dict[str, Any] = field(default_factory=dict)

    def add(self, content: bytes, metrics: Mapping[str, Any]) -> None:
        self.messages += 1
        self.size += len(content)
        self.digest.update(content)
        self.metrics.update(metrics)


class Departures:
    """Lives on the agent's event loop. What lists returns when the entry is on disk, and raises `ConfigurationError` if the log can't
    be written; then send nothing.

    `leave` is asked anew for every message.
    """

    def __init__(self, ledger: Ledger, leave: Callable[[], Leave], federation: str) -> None:
        self._ledger, self._leave, self._federation = ledger, leave, federation
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: dict[str, task_pb2.Task] = {}
        self._gathered: dict[tuple[str, str], _Gathered] = {}
        self._due: list[dict[str, Any]] = []
        self._writing = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        """Will write what is due when it is its turn."""
        self._published = fleet_pb2.DataCards()
        """The data cards that the server has."""

    def expect(self, task: task_pb2.Task) -> None:
        """What leaves for this task is listed under its run and round."""
        brief = task_pb2.Task(run_id=task.run_id, round=task.round, kind=task.kind, app=task.app)
        self._tasks[task.task_id] = brief
        if len(self._tasks) > KNOWN_TASKS:
            del self._tasks[next(iter(self._tasks))]

    async def hello(self, hello: fleet_pb2.Hello) -> fleet_pb2.AgentMessage:
        leave = self._leave()
        _keep(hello.properties, lambda name: matches(leave.properties, name))
        for app in hello.apps:
            app.columns[:] = [name for name in app.columns if matches(leave.columns, name)]
        facts.keep(hello.machine, leave.machine)
        self._published = cards.published(hello.cards, leave)
        hello.cards.CopyFrom(self._published)
        message = fleet_pb2.AgentMessage(hello=hello)
        told = _plain(hello.properties)
        await self._list("hello", message.SerializeToString(), metrics=told, cards=cards.plain(self._published))
        return message

    async def renewal(self, request: identity_pb2.RenewRequest) -> None:
        await self._list("renewal", request.SerializeToString())

    async def message(self, message: fleet_pb2.AgentMessage) -> fleet_pb2.AgentMessage:
        """The message, as it may be sent."""
        match message.WhichOneof("body"):
            case "heartbeat":
                self._strip_heartbeat(message.heartbeat)
                if message.heartbeat.HasField("cards"):
                    await self._list("card", message.SerializeToString(), cards=cards.plain(self._published))
                else:
                    await self._gather("heartbeats", "", HEARTBEAT_SECONDS, message, {})
            case "progress":
                self._strip(message.progress.metrics)
                metrics, task_id = _plain(message.progress.metrics), message.progress.task_id
                await self._gather("progress", task_id, PROGRESS_SECONDS, message, metrics)
            case "result":
                self._strip(message.result.metrics)
                self._flush("progress", message.result.task_id)
                await self._list_result(message)
            case "availability":
                await self._list("availability", message.SerializeToString(), detail=message.availability.unavailable)
        return message

    async def update(self, task_id: str, update: Update, offset: int) -> Update:
        """The update, as it may be sent. `offset`: what of it the server has already."""
        metrics, resumed = dict(update.metrics), {"from": offset} if offset else {}
        about: dict[str, Any] = self._about(task_id) | resumed
        if update.steps and update.steps[0] < update.steps[1]:
            about["steps"] = f"{update.steps[0]} of {update.steps[1]}"
        self._strip(metrics)
        self._flush("progress", task_id)
        await self._list(
            "update",
            sha256=update.sha256,
            size=len(update.content) - offset,
            metrics=_plain(metrics),
            examples=update.num_examples,
            **about,
        )
        return replace(update, metrics=metrics)

    async def until_failure(self) -> None:
        """Raises the first error of the log: an agent that can't list what leaves must end."""
        await asyncio.shield(self._failure)

    def close(self) -> None:
        """List what is still gathered."""
        for kind, task_id in list(self._gathered):
            self._flush(kind, task_id)
        due, self._due = self._due, []
        self._append(due)

    def _strip(self, metrics: ProtoScalars) -> None:
        _keep(metrics, self._leave().allows_metric)

    def _strip_heartbeat(self, beat: fleet_pb2.Heartbeat) -> None:
        """Of the cards that every heartbeat brings, only changed ones leave."""
        leave = self._leave()
        facts.keep(beat, leave.machine)
        fresh = cards.published(beat.cards, leave)
        beat.ClearField("cards")
        if fresh != self._published:
            self._published = fresh
            beat.cards.CopyFrom(fresh)

    async def _list_result(self, message: fleet_pb2.AgentMessage) -> None:
        result = message.result
        outcome = task_pb2.TaskOutcome.Name(result.outcome).removeprefix("TASK_OUTCOME_").lower()
        told: dict[str, Any] = _plain(result.metrics)
        about: dict[str, Any] = self._about(result.task_id)
        if about.get("task") == "evaluate" and result.outcome == task_pb2.TASK_OUTCOME_COMPLETED:
            told["loss"] = _number(result.loss)
        if result.HasField("answer"):
            told |= {name.name: _answered(value) for name, value in result.answer.ListFields()}
        if result.num_examples:
            about["examples"] = result.num_examples
        if result.reason:
            about["detail"] = result.reason
        await self._list("result", message.SerializeToString(), outcome=outcome, metrics=told, **about)

    async def _gather(
        self, kind: str, task_id: str, seconds: float, message: fleet_pb2.AgentMessage, metrics: Mapping[str, Any]
    ) -> None:
        moment = time.monotonic()
        if (older := self._gathered.get((kind, task_id))) and moment - older.begun >= seconds:
            self._flush(kind, task_id)
            await self._write()
        new = _Gathered({"since": now(), **self._about(task_id)}, moment)
        self._gathered.setdefault((kind, task_id), new).add(message.SerializeToString(), metrics)

    def _flush(self, kind: str, task_id: str) -> None:
        """Of what was gathered there will be an entry, with the next that is written: each writing waits for the disk."""
        if gathered := self._gathered.pop((kind, task_id), None):
            about: dict[str, Any] = {"messages": gathered.messages, **gathered.about}
            if gathered.metrics:
                about["metrics"] = gathered.metrics
            sha256, size = gathered.digest.hexdigest(), gathered.size
            self._due.append(entry(kind, self._federation, sha256=sha256, size=size, **about))

    async def _list(self, kind: str, content: bytes = b"", *, sha256: str = "", size: int = 0, **more: Any) -> None:
        self._due.append(entry(kind, self._federation, content, sha256=sha256, size=size, **more))
        await self._write()

    async def _write(self) -> None:
        """In a thread, since the disk takes its time. What becomes due meanwhile is written together."""
        if self._next is None:
            self._next = asyncio.create_task(self._write_due())
        await asyncio.shield(self._next)  # it may write the entries of others, whoever is cancelled
        if self._failure.done():
            self._failure.result()

    async def _write_due(self) -> None:
        async with self._writing:
            due, self._due, self._next = self._due, [], None
            try:
                await asyncio.to_thread(self._append, due)
            except ConfigurationError as error:
                self._due[:0] = due
                if not self._failure.done():
                    self._failure.set_exception(error)

    def _append(self, due: list[dict[str, Any]]) -> None:
        if due:
            self._ledger.append(*due)

    def _about(self, task_id: str) -> dict[str, Any]:
        if (task := self._tasks.get(task_id)) is None:
            return {"task_id": task_id} if task_id else {}
        kind = {"fit": "train"}.get(name := _kind_name(task), name)
        return {"run": task.run_id, "round": task.round, "task": kind, "app": task.app}


def entry(
    kind: str, federation: str, content: bytes = b"", *, sha256: str = "", size: int = 0, **more: Any
) -> dict[str, Any]:
    """An entry of the log, for `Ledger.append`. Of what is too long to be handed over, hash and size are."""
    return {
        "at": now(),
        "federation": federation,
        "kind": kind,
        "bytes": size or len(content),
        "sha256": sha256 or hashlib.sha256(content).hexdigest(),
        **more,
    }


def _kind_name(task: task_pb2.Task) -> str:
    return task_pb2.TaskKind.Name(task.kind).removeprefix("TASK_KIND_").lower()


def _keep(scalars: ProtoScalars, allowed: Callable[[str], bool]) -> None:
    for name in [name for name in scalars if not allowed(name)]:
        del scalars[name]


def _plain(scalars: Mapping[str, tensor_pb2.Scalar]) -> dict[str, Any]:
    """As JSON can hold them, in the order of their names."""
    return {name: _value(scalars[name]) for name in sorted(scalars)}


def _value(scalar: tensor_pb2.Scalar) -> Any:
    match getattr(scalar, scalar.WhichOneof("value") or "string"):
        case bytes() as content:
            return f"{content[:SHOWN_CHARACTERS].hex()}{'…' * (len(content) > SHOWN_CHARACTERS)}"
        case str() as text:
            return f"{text[:SHOWN_CHARACTERS]}{'…' * (len(text) > SHOWN_CHARACTERS)}"
        case float() as number:
            return _number(number)
        case other:
            return other


def _number(value: float) -> float | str:
    """JSON has no infinities."""
    return value if math.isfinite(value) else str(value)


def _answered(value: Any) -> Any:
    return _number(value) if isinstance(value, int | float) else list(value)
