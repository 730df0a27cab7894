"""A thousand agents in one process: a certificate, a TLS connection and a stream each. They beat, echo what they are sent, and come again.

Reads a `Load` as JSON from the file that it is given; for each line on standard input it says on standard output how it goes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from client_agent import backoff
from protos import limits
from protos.convert import signature_from_proto, signature_to_proto
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, task_pb2, transfer_pb2, transfer_pb2_grpc
from protos.tensors import Signature, TensorSpec

TOO_LATE = "No heartbeat"
OPTIONS = (("grpc.use_local_subchannel_pool", 1),)


@dataclass(frozen=True)
class Load:
    address: str
    ca: str
    app: str
    size: int
    """Of the app's model, in float32 numbers."""
    identities: Sequence[tuple[str, str]]
    """Key and certificate of each agent, PEM."""


@dataclass
class Tally:
    """What all agents have seen together since it was last asked for."""

    connected: int = 0
    attempts: int = 0
    declared_late: int = 0
    slowest_answer: float = 0.0
    """Seconds from a heartbeat to its answer."""
    tasks: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def note(self, error: str) -> None:
        self.errors[error] = self.errors.get(error, 0) + 1


class LoadAgent:
    def __init__(self, load: Load, identity: tuple[str, str], tally: Tally) -> None:
        self._load, self._tally = load, tally
        key, certificate = identity
        self._credentials = grpc.ssl_channel_credentials(load.ca.encode(), key.encode(), certificate.encode())
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Comes again as `client_agent.connection` does."""
        self._delays = backoff.delays()
        while True:
            pause: float | None = None
            self._tally.attempts += 1
            try:
                async with aio.secure_channel(self._load.address, self._credentials, options=OPTIONS) as channel:
                    pause = await self._converse(channel)
            except aio.AioRpcError as error:
                self._tally.note(error.code().name)
            except TimeoutError:
                self._tally.note("silence")
            await asyncio.sleep(next(self._delays) if pause is None else pause * random.uniform(1, 1.5))

    async def _converse(self, channel: aio.Channel) -> float | None:
        outgoing: asyncio.Queue[fleet_pb2.AgentMessage] = asyncio.Queue()
        stream = fleet_pb2_grpc.FleetStub(channel).Connect()
        async with asyncio.timeout(30):
            await stream.write(self._hello())
            welcome = await stream.read()
        if not isinstance(welcome, fleet_pb2.ServerMessage) or not welcome.HasField("welcome"):
            self._tally.note("no welcome")
            return None
        self._delays = backoff.delays()
        self._tally.connected += 1
        helpers = [
            asyncio.create_task(self._beat(outgoing, welcome.welcome.heartbeat_seconds)),
            asyncio.create_task(_send(stream, outgoing)),
        ]
        try:
            return await self._obey(stream, channel, outgoing)
        finally:
            self._tally.connected -= 1
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _beat(self, outgoing: asyncio.Queue[fleet_pb2.AgentMessage], seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            self._beaten_at = time.monotonic()
            outgoing.put_nowait(fleet_pb2.AgentMessage(heartbeat=fleet_pb2.Heartbeat(memory_bytes=1)))

    async def _obey(
        self, stream: Any, channel: aio.Channel, outgoing: asyncio.Queue[fleet_pb2.AgentMessage]
    ) -> float | None:
        while isinstance(message := await stream.read(), fleet_pb2.ServerMessage):
            match message.WhichOneof("body"):
                case "heartbeat_ack":
                    answered = time.monotonic() - self._beaten_at
                    self._tally.slowest_answer = max(self._tally.slowest_answer, answered)
                case "task":
                    work = asyncio.create_task(self._work(message.task, channel, outgoing))
                    self._tasks.add(work)
                    work.add_done_callback(self._tasks.discard)
                case "goodbye":
                    self._tally.declared_late += message.goodbye.reason.startswith(TOO_LATE)
                    return float(message.goodbye.reconnect_after_seconds)
        return None

    async def _work(
        self, task: task_pb2.Task, channel: aio.Channel, outgoing: asyncio.Queue[fleet_pb2.AgentMessage]
    ) -> None:
        stub = transfer_pb2_grpc.TransferStub(channel)
        if task.kind == task_pb2.TASK_KIND_INITIALISE:
            content, signature = bytes(_signature(self._load.size).size), _signature(self._load.size)
        else:
            request = transfer_pb2.DownloadRequest(task_id=task.task_id)
            content = b"".join([chunk.data async for chunk in stub.Download(request)])
            signature = signature_from_proto(task.model.signature)
        await stub.Upload(_upload(task, content, signature))
        result = task_pb2.TaskResult(task_id=task.task_id, outcome=task_pb2.TASK_OUTCOME_COMPLETED)
        outgoing.put_nowait(fleet_pb2.AgentMessage(result=result))
        self._tally.tasks += 1

    def _hello(self) -> fleet_pb2.AgentMessage:
        signature = signature_to_proto(_signature(self._load.size))
        offer = fleet_pb2.AppOffer(name=self._load.app, version="1", framework="numpy", signature=signature)
        hello = fleet_pb2.Hello(
            protocol_major=limits.PROTOCOL_MAJOR,
            protocol_minor=limits.PROTOCOL_MINOR,
            agent_version="0",
            platform="load",
            apps=[offer],
        )
        return fleet_pb2.AgentMessage(hello=hello)


def _signature(size: int) -> Signature:
    return Signature((TensorSpec("w", "float32", (size,)),))


async def _send(stream: Any, outgoing: asyncio.Queue[fleet_pb2.AgentMessage]) -> None:
    while True:
        await stream.write(await outgoing.get())


async def _upload(
    task: task_pb2.Task, content: bytes, signature: Signature
) -> AsyncIterator[transfer_pb2.UploadMessage]:
    header = transfer_pb2.UploadHeader(
        task_id=task.task_id,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        signature=signature_to_proto(signature),
        num_examples=1,
    )
    yield transfer_pb2.UploadMessage(header=header)
    for start in range(0, len(content), limits.CHUNK_BYTES):
        chunk = transfer_pb2.Chunk(data=content[start : start + limits.CHUNK_BYTES])
        yield transfer_pb2.UploadMessage(chunk=chunk)


async def _main(load: Load) -> None:
    tally = Tally()
    agents = [asyncio.create_task(LoadAgent(load, identity, tally).run()) for identity in load.identities]
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(asdict(tally)), flush=True)
        tally.attempts = tally.declared_late = tally.tasks = 0
        tally.slowest_answer, tally.errors = 0.0, {}
        if broken := [agent for agent in agents if agent.done()]:
            await broken[0]
    for agent in agents:
        agent.cancel()


if __name__ == "__main__":
    asyncio.run(_main(Load(**json.loads(Path(sys.argv[1]).read_text()))))
