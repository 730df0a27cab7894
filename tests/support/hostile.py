"""What hostile agents do with a task: a table, held against the engine with its ports in memory and over the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from grpc import aio

from protos import limits
from protos.fedui.v1 import task_pb2, tensor_pb2, transfer_pb2
from protos.tensors import Parameters, encode
from tests.support.scripted_agent import ScriptedAgent

Deed = Callable[[ScriptedAgent, task_pb2.Task], Awaitable[Any]]

MOST_ATTEMPTS = 20


def update(value: float = 0.0, **changes: Any) -> Parameters:
    """Of the scripted agents' model, with `value` in the last place."""
    weights = np.zeros((4, 3), "f4")
    weights[-1, -1] = value
    return {"w": weights, "steps": np.array(0, "i8")} | changes


def sends(parameters: Parameters | None = None, content: bytes | None = None, **header: Any) -> Deed:
    """An upload of `parameters`, or under their header of `content`."""

    async def deed(agent: ScriptedAgent, task: task_pb2.Task) -> None:
        sent = update() if parameters is None else parameters
        data = bytes(encode(sent))
        await agent.send_upload(agent.header(task, sent, data, **header), data if content is None else content)

    return deed


def sends_raw(*messages: transfer_pb2.UploadMessage, header_first: bool = False) -> Deed:
    async def deed(agent: ScriptedAgent, task: task_pb2.Task) -> None:
        async def stream() -> AsyncIterator[transfer_pb2.UploadMessage]:
            if header_first:
                data = bytes(encode(update()))
                yield transfer_pb2.UploadMessage(header=agent.header(task, update(), data))
            for message in messages:
                yield message

        await agent.transfer.Upload(stream())

    return deed


async def claims_success(agent: ScriptedAgent, task: task_pb2.Task) -> None:
    agent.report(task)


def chunk(data: bytes) -> transfer_pb2.UploadMessage:
    return transfer_pb2.UploadMessage(chunk=transfer_pb2.Chunk(data=data))


def _spec(dtype: str = "float32", *shape: int, name: str = "w") -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=name, dtype=dtype, shape=shape)


def declares(*tensors: tensor_pb2.TensorSpec) -> Deed:
    return sends(signature=tensor_pb2.ModelSignature(tensors=tensors))


def _metrics(**values: Any) -> dict[str, tensor_pb2.Scalar]:
    return {name: tensor_pb2.Scalar(**value) for name, value in values.items()}


WHOLE = bytes(encode(update()))

DEEDS: dict[str, tuple[Deed, str]] = {
    # what is in the update
    "NaN": (sends(update(np.nan)), "NaN or infinity"),
    "infinity": (sends(update(-np.inf)), "NaN or infinity"),
    "numbers that no mean can hold": (sends(update(3e38)), "too large to be averaged"),
    "another shape": (sends(update(w=np.zeros((3, 4), "f4"))), r"shape \(3, 4\), not \(4, 3\)"),
    "one number for a scalar": (sends(update(steps=np.zeros(1, "i8"))), r"'steps' has shape \(1,\), not \(\)"),
    "another dtype": (sends(update(w=np.zeros((4, 3), "i4"))), "dtype int32, not float32"),
    "a tensor less": (sends({"w": np.zeros((4, 3), "f4")}), "'steps' is missing"),
    "a tensor more": (sends(update(v=np.zeros(1, "f4"))), "at most"),
    "another name": (sends({"v": np.zeros((4, 3), "f4"), "steps": np.array(0)}), "'w' is missing"),
    "another order": (sends(dict(reversed(update().items()))), "come in another order"),
    "no examples": (sends(num_examples=0), "counts 0 examples"),
    "too many examples": (sends(num_examples=2**64 - 1), "counts 18,446,744,073,709,551,615 examples"),
    # what is said of it
    "a wrong hash": (sends(sha256="0" * 64), "damaged on its way"),
    "a hash that is none": (sends(sha256="x" * 3_000_000), "64 hexadecimal digits"),
    "a size too small": (sends(size=64), "the run's model has"),
    "a size too large": (sends(size=192), "at most 128"),
    "a size of 2^63": (sends(size=2**63), "at most 128"),
    "a size of 2^64 - 1": (sends(size=2**64 - 1), "at most 128"),
    "no bytes at all": (sends({}), "'w' is missing"),
    "an offset beyond": (sends(offset=2**63), "goes on at byte 0"),
    "another encoding": (sends(encoding=tensor_pb2.UpdateEncoding(compression="int8")), "the run wants"),
    "an unknown encoding": (sends(encoding=tensor_pb2.UpdateEncoding(compression="zip\0")), "zip"),
    "dimensions whose product overflows": (declares(_spec("float32", 2**40, 2**20)), "the limit is"),
    "more dimensions than there are": (declares(_spec("float32", *[1] * 100_000)), "dimensions"),
    "a negative dimension": (declares(_spec("float32", -4, -3)), "negative dimension"),
    "more tensors than a model has": (
        declares(*(_spec(name=str(i)) for i in range(limits.MAX_TENSORS + 1))),
        "at most 10000 tensors",
    ),
    "a name twice": (declares(_spec(), _spec()), "the same name"),
    "NUL in a name": (declares(_spec(name="w\0")), "character NUL"),
    "a dtype that can run code": (declares(_spec("object")), "dtype 'object'"),
    "an open length": (declares(_spec("uint8", -1), _spec("int64", name="steps")), "the run's model has"),
    "a huge map": (sends(metrics=_metrics(**{f"m{i}": {"double": 1.0} for i in range(5_000)})), "5000 named values"),
    "a metric without a value": (sends(metrics=_metrics(loss={})), "'loss' has no value"),
    "a metric with NUL": (sends(metrics=_metrics(loss={"string": "\0"})), "a text with NUL"),
    "a metric too long": (sends(metrics=_metrics(loss={"bytes": bytes(5_000)})), "over 4096 bytes"),
    # how it comes
    "no header": (sends_raw(chunk(WHOLE)), "begins with its header"),
    "nothing": (sends_raw(), "begins with its header"),
    "truncated": (sends(content=WHOLE[:10]), "ended after 10 of 128 bytes"),
    "oversized": (sends(content=WHOLE + b"x"), "More bytes arrived"),
    "a chunk too large": (
        sends_raw(chunk(bytes(limits.QUICK_CHUNK_BYTES + 1)), header_first=True),
        "A chunk holds at most",
    ),
    "a message too large": (sends_raw(chunk(bytes(limits.MAX_MESSAGE_BYTES)), header_first=True), "larger than max"),
    "a second header": (
        sends_raw(transfer_pb2.UploadMessage(header=transfer_pb2.UploadHeader(task_id="x")), header_first=True),
        "ended after 0 of 128 bytes",
    ),
    "success without an update": (claims_success, "sent no update"),
}
"""Of each what it does, and what the operator reads of it."""


async def insist(agent: ScriptedAgent, task: task_pb2.Task, deed: Deed) -> None:
    """Does it again and again until the task is closed. If it never is, gives up, and says what the server said."""
    said = ""
    for _ in range(MOST_ATTEMPTS):
        try:
            await deed(agent, task)
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return
            said = error.details() or ""
        else:
            return
    agent.report(task, task_pb2.TASK_OUTCOME_FAILED, reason=said)
