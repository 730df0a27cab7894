"""A server in a process of its own: the engine's transfer service with one model to send and one upload to take, and a bare stream of
the same chunks.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from grpc import aio

from aggregator.context import checked_parameters
from aggregator.hub import Assignment, Hub, Update
from aggregator.memory import MemoryClientRegistry
from aggregator.transport.calls import OpenCalls
from aggregator.transport.pace import TransferLimits
from aggregator.transport.server import TLSMaterial, build_server
from benchmarks.timing import peak_of, reset_peak
from protos.fedui.v1 import task_pb2, transfer_pb2
from protos.tensors import Signature, TensorSpec

CLIENT, TASK = "bench", "task"
BARE = "/fedui.bench.Bare/Upload"


@dataclass
class TransferServer:
    port: int
    bare_port: int
    _commands: Connection

    def ask(self, command: str) -> Any:
        """`reset peak`, `peak`: bytes of the server; `sha256`: of the update that has been taken in."""
        self._commands.send(command)
        return self._commands.recv()


@contextmanager
def transfer_server(tls: TLSMaterial, size: int, *, with_model: bool = False) -> Iterator[TransferServer]:
    """For one client whose update has `size` bytes of float32; and whose task has a model of `sparse_content`."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, tls, size, with_model), daemon=True)
    process.start()
    theirs.close()
    try:
        port, bare_port = ours.recv()
        yield TransferServer(port, bare_port, ours)
    finally:
        ours.close()
        process.join(10)


def sparse_content(size: int) -> bytearray:
    """Zeros, which take no memory until they are written, but for a few float32 in places that tell offsets of 31 and 32 bits apart."""
    content = bytearray(size)
    for number, place in enumerate((0, size // 4, size // 2, size - 4), start=1):
        content[place : place + 4] = np.float32(number).tobytes()
    return content


def signature_of(size: int) -> Signature:
    return Signature((TensorSpec("w", "float32", (size // 4,)),))


class _Round:
    """Takes an update as a round does, up to the aggregation."""

    def __init__(self, size: int) -> None:
        self._signature = signature_of(size)
        self.sha256 = ""

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None: ...

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None: ...

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None: ...

    def on_lost(self, assignment: Assignment) -> None: ...

    def on_handed(self, assignment: Assignment) -> None: ...

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        await checked_parameters(update, self._signature)
        self.sha256 = update.sha256


def _main(commands: Connection, tls: TLSMaterial, size: int, with_model: bool) -> None:
    asyncio.run(_serve(commands, tls, size, with_model))


async def _serve(commands: Connection, tls: TLSMaterial, size: int, with_model: bool) -> None:
    registry = MemoryClientRegistry()
    registry.add(CLIENT)
    hub, listener = Hub(registry, heartbeat_seconds=5, lost_after_seconds=3600), _Round(size)
    with tempfile.TemporaryDirectory(prefix="fedui-bench-") as folder:
        server, port = build_server(
            hub, registry, OpenCalls(), lambda: tls, "127.0.0.1:0", Path(folder), TransferLimits()
        )
        bare, bare_port = _bare_server(tls)
        await server.start()
        await bare.start()
        task = task_pb2.Task(task_id=TASK, run_id="1", kind=task_pb2.TASK_KIND_FIT)
        model = sparse_content(size) if with_model else b""
        task.model.size = len(model)
        hub.assign(Assignment(CLIENT, task, listener, model))
        commands.send((port, bare_port))
        answers: dict[str, Callable[[], object]] = {
            "reset peak": partial(reset_peak, psutil.Process()),
            "peak": partial(peak_of, psutil.Process()),
            "sha256": lambda: listener.sha256,
        }
        try:
            while True:
                command = await asyncio.to_thread(commands.recv)
                commands.send(answers[command]())
        except EOFError:
            await asyncio.gather(server.stop(None), bare.stop(None))


def _bare_server(tls: TLSMaterial) -> tuple[aio.Server, int]:
    async def upload(messages: AsyncIterator[transfer_pb2.UploadMessage], _: Any) -> transfer_pb2.UploadReceipt:
        async for _message in messages:
            pass
        return transfer_pb2.UploadReceipt()

    handler = grpc.stream_unary_rpc_method_handler(
        upload,
        request_deserializer=transfer_pb2.UploadMessage.FromString,
        response_serializer=transfer_pb2.UploadReceipt.SerializeToString,
    )
    service, method = BARE.removeprefix("/").split("/")
    server = aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    credentials = grpc.ssl_server_credentials([(tls.key, tls.certificate)], tls.client_ca, require_client_auth=True)
    return server, server.add_secure_port("127.0.0.1:0", credentials)
