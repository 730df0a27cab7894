"""An agent for tests: real gRPC over mutual TLS, with a script's will instead of an app."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self

import numpy as np
from grpc import aio

from protos import limits
from protos.convert import (
    ScalarValue,
    encoding_from_proto,
    encoding_to_proto,
    scalars_to_proto,
    signature_from_proto,
    signature_to_proto,
)
from protos.encodings import encode
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, task_pb2, transfer_pb2, transfer_pb2_grpc
from protos.tensors import Parameters, Signature, TensorSpec, decode
from tests.support.authority import TestAuthority

SIGNATURE = Signature((TensorSpec("w", "float32", (4, 3)), TensorSpec("steps", "int64", ())))


class ScriptedAgent:
    """Keeps what the server sends. With `automatic`, does its tasks: adds `step` to each weight."""

    def __init__(
        self,
        authority: TestAuthority,
        port: int,
        client_id: str,
        *,
        num_examples: int = 10,
        step: float = 1.0,
        automatic: bool = True,
        signature: Signature = SIGNATURE,
        protocol_minor: int = limits.PROTOCOL_MINOR,
        columns: Sequence[str] = (),
        platform: str = "",
        life: timedelta = timedelta(hours=1),
        unavailable: str = "",
        max_tasks: int = 0,
    ) -> None:
        self.client_id, self.num_examples, self.step, self.automatic = client_id, num_examples, step, automatic
        self.signature, self.columns, self.platform = signature, columns, platform
        self.unavailable, self.max_tasks = unavailable, max_tasks
        self.tasks: asyncio.Queue[task_pb2.Task] = asyncio.Queue()
        self.cancelled: asyncio.Queue[fleet_pb2.CancelTask] = asyncio.Queue()
        self.goodbye: asyncio.Future[fleet_pb2.Goodbye] = asyncio.get_running_loop().create_future()
        self.welcome: asyncio.Future[fleet_pb2.Welcome] = asyncio.get_running_loop().create_future()
        self.in_hand: list[str] = []
        self.metrics: dict[str, ScalarValue] = {}
        self.protocol, self.protocol_minor = limits.PROTOCOL_MAJOR, protocol_minor
        self._outgoing: asyncio.Queue[fleet_pb2.AgentMessage | None] = asyncio.Queue()
        self._channel = aio.secure_channel(f"127.0.0.1:{port}", authority.client(client_id, life))
        self.transfer = transfer_pb2_grpc.TransferStub(self._channel)
        self._work: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        async with asyncio.timeout(10):
            while not (self.welcome.done() or self.goodbye.done()):
                await asyncio.sleep(0.005)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    async def hang_up(self) -> None:
        """Like a process that is killed: the connection goes, nothing is said."""
        for task in [self._reader, *self._work]:
            task.cancel()
        await asyncio.gather(self._reader, *self._work, return_exceptions=True)
        await self._channel.close()

    def keep_beating(self, seconds: float) -> None:
        async def beat() -> None:
            while True:
                self.send(heartbeat=fleet_pb2.Heartbeat())
                await asyncio.sleep(seconds)

        self._work.add(asyncio.create_task(beat()))

    def send(self, **body: Any) -> None:
        self._outgoing.put_nowait(fleet_pb2.AgentMessage(**body))

    async def _read(self) -> None:
        stream = fleet_pb2_grpc.FleetStub(self._channel).Connect(self._messages())
        async for message in stream:
            match message.WhichOneof("body"):
                case "welcome":
                    self.welcome.set_result(message.welcome)
                case "task" if self.automatic:
                    work = asyncio.create_task(self._do_by_itself(message.task))
                    self._work.add(work)
                    work.add_done_callback(self._work.discard)
                case "task":
                    self.tasks.put_nowait(message.task)
                case "cancel":
                    self.cancelled.put_nowait(message.cancel)
                case "goodbye":
                    self.goodbye.set_result(message.goodbye)

    async def _messages(self) -> AsyncIterator[fleet_pb2.AgentMessage]:
        signature = signature_to_proto(self.signature)
        offer = fleet_pb2.AppOffer(name="toy", version="1", signature=signature, columns=self.columns)
        hello = fleet_pb2.Hello(
            protocol_major=self.protocol,
            protocol_minor=self.protocol_minor,
            agent_version="0",
            platform=self.platform,
            apps=[offer],
            tasks_in_hand=self.in_hand,
            unavailable=self.unavailable,
            max_tasks=self.max_tasks,
        )
        yield fleet_pb2.AgentMessage(hello=hello)
        while message := await self._outgoing.get():
            yield message

    async def _do_by_itself(self, task: task_pb2.Task) -> None:
        try:
            await self.do(task)
        except aio.AioRpcError as error:
            self.report(task, task_pb2.TASK_OUTCOME_FAILED, reason=error.details())

    async def do(self, task: task_pb2.Task) -> None:
        match task.kind:
            case task_pb2.TASK_KIND_INITIALISE:
                await self.upload(task, self.initial(), num_examples=0)
            case task_pb2.TASK_KIND_FIT:
                model = await self.download(task)
                self.send(progress=task_pb2.Progress(task_id=task.task_id, phase=task_pb2.PHASE_TRAINING, fraction=1.0))
                await self.upload(task, self.trained(model), given=model)
            case task_pb2.TASK_KIND_EVALUATE:
                model = await self.download(task)
                self.report(task, loss=float(model["w"].mean()), num_examples=self.num_examples)
                return
        self.report(task)

    def initial(self) -> Parameters:
        return {t.name: np.zeros(t.shape, t.dtype) for t in self.signature.tensors}

    def trained(self, model: Parameters) -> Parameters:
        return {name: np.asarray(array + np.array(self.step, array.dtype)) for name, array in model.items()}

    async def download(self, task: task_pb2.Task, offset: int = 0) -> Parameters:
        request = transfer_pb2.DownloadRequest(task_id=task.task_id, offset=offset)
        data = b"".join([chunk.data async for chunk in self.transfer.Download(request)])
        assert hashlib.sha256(data).hexdigest() == task.model.sha256 or offset
        return decode(data, signature_from_proto(task.model.signature))

    async def upload(
        self, task: task_pb2.Task, update: Parameters, given: Parameters | None = None, **header: Any
    ) -> transfer_pb2.UploadReceipt:
        data = bytes(encode(update, encoding_from_proto(task.encoding), given, task.rounding_seed))
        return await self.send_upload(self.header(task, update, data, **header), data)

    def header(self, task: task_pb2.Task, update: Parameters, data: bytes, **changes: Any) -> transfer_pb2.UploadHeader:
        metrics: Mapping[str, ScalarValue] = {"loss": 1.0 / self.num_examples, **self.metrics}
        fields: dict[str, Any] = {
            "task_id": task.task_id,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "signature": signature_to_proto(Signature.of(update)),
            "num_examples": self.num_examples,
            "metrics": scalars_to_proto(metrics),
            "encoding": encoding_to_proto(encoding_from_proto(task.encoding)),
        }
        return transfer_pb2.UploadHeader(**(fields | changes))

    async def send_upload(self, header: transfer_pb2.UploadHeader, data: bytes) -> transfer_pb2.UploadReceipt:
        async def messages() -> AsyncIterator[transfer_pb2.UploadMessage]:
            yield transfer_pb2.UploadMessage(header=header)
            for start in range(0, len(data), limits.CHUNK_BYTES):
                chunk = transfer_pb2.Chunk(data=data[start : start + limits.CHUNK_BYTES])
                yield transfer_pb2.UploadMessage(chunk=chunk)

        return await self.transfer.Upload(messages())

    def report(self, task: task_pb2.Task, outcome: Any = task_pb2.TASK_OUTCOME_COMPLETED, **fields: Any) -> None:
        self.send(result=task_pb2.TaskResult(task_id=task.task_id, outcome=outcome, **fields))
