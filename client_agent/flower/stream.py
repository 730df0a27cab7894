"""One Flower client's stream, and that client as FedUI's tasks see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc

from client_agent.errors import AgentError, BrokenApp, TaskRefused
from client_agent.flower import arrays, messages
from client_agent.flower.messages import Answer
from client_agent.sdk import Arrays, Config, EvaluateResult, FitResult, Metrics
from protos.convert import ScalarValue
from protos.flower import transport_pb2
from protos.flower.transport_pb2 import ServerMessage
from protos.tensors import Signature

MAX_MESSAGE_BYTES = 2**31 - 1
"""Protobuf's limit. Flower sends a model as one message."""
_HEADERS_BYTES = 2**20
"""Room in it for everything but the arrays' own bytes."""

_ROUND = "server_round"
"""What Flower's own examples call it."""


class FlowerClientLeft(AgentError):
    """The Flower client has ended its stream; its own log says why."""


class FlowerStream:
    """From a Flower client's joining to its leaving. It is asked one thing at a time, as its protocol wants it."""

    def __init__(self, write: Callable[[ServerMessage | bytes], Awaitable[None]]) -> None:
        self._write = write
        self._turn = asyncio.Lock()
        self._answer: asyncio.Future[Answer] | None = None
        self._refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.left = asyncio.Event()
        self.left_at_work = False

    async def ask(self, instruction: ServerMessage | bytes) -> Answer:
        """Raises `FlowerClientLeft`."""
        async with self._turn:
            if self.left.is_set():
                raise FlowerClientLeft("The Flower client has left.")
            self._answer = asyncio.get_running_loop().create_future()
            try:
                await self._write(instruction)
                return await self._answer
            except grpc.aio.BaseError as error:  # the stream broke under the instruction
                raise FlowerClientLeft("The Flower client has left.") from error
            finally:
                self._answer = None

    async def say_farewell(self) -> None:
        """Let the client end by itself, as Flower's server does when a run is over."""
        with contextlib.suppress(FlowerClientLeft):
            await self.ask(ServerMessage(reconnect_ins=transport_pb2.ReconnectIns(seconds=0)))
        await self.left.wait()

    def refuse(self, reason: str) -> None:
        """End the stream with an error that the client's log will show."""
        if not self._refused.done():
            self._refused.set_result(reason)

    async def listen(self, answers: AsyncIterator[Answer]) -> str:
        """Until the client leaves, or is refused with the reason that this returns."""
        reading = asyncio.create_task(self._read(answers))
        endings: list[asyncio.Future[Any]] = [reading, self._refused]
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            return self._refused.result() if self._refused.done() else ""
        finally:
            reading.cancel()
            self._leave()

    async def _read(self, answers: AsyncIterator[Answer]) -> None:
        async for answer in answers:
            if self._answer and not self._answer.done():
                self._answer.set_result(answer)

    def _leave(self) -> None:
        self.left.set()
        if self._answer and not self._answer.done():
            self.left_at_work = True
            self._answer.set_exception(
                FlowerClientLeft("The Flower client left while it was at work; its log says why.")
            )


class FlowerClient:
    """A client whose work a Flower client does at the other end of a stream. Its methods are called from threads."""

    def __init__(self, stream: FlowerStream, loop: asyncio.AbstractEventLoop, properties: Metrics) -> None:
        self._stream = stream
        self._loop = loop
        self._properties = properties
        self.initial: Arrays | None = None
        """What runs begin with, if not the Flower client decides that."""
        self.signature: Signature | None = None
        """What arrays are made to fit, once it is known."""

    @classmethod
    async def greet(cls, stream: FlowerStream) -> FlowerClient:
        """Asks for the properties, which an agent tells before it has any task. Raises `FlowerClientLeft`."""
        instruction = ServerMessage(get_properties_ins=transport_pb2.GetPropertiesIns())
        answer = (await stream.ask(instruction)).message.get_properties_res
        return cls(stream, asyncio.get_running_loop(), _scalars(answer.properties))

    def get_properties(self, config: Config) -> Metrics:
        return self._properties

    def get_parameters(self, config: Config) -> Arrays:
        if self.initial:
            return self.initial
        instruction = transport_pb2.GetParametersIns(config=_config(config))
        answer = self._ask("get_parameters", ServerMessage(get_parameters_ins=instruction))
        _raise_unless_ok(answer.message.get_parameters_res.status)
        return self._arrays(answer)

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        answer = self._ask("fit", _instruction(transport_pb2.FitIns(config=_config(config)), parameters))
        fitted = answer.message.fit_res
        _raise_unless_ok(fitted.status)
        return self._arrays(answer), fitted.num_examples, _scalars(fitted.metrics)

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        answer = self._ask("evaluate", _instruction(transport_pb2.EvaluateIns(config=_config(config)), parameters))
        evaluated = answer.message.evaluate_res
        _raise_unless_ok(evaluated.status)
        return evaluated.loss, evaluated.num_examples, _scalars(evaluated.metrics)

    def _ask(self, asked: str, instruction: ServerMessage | bytes) -> Answer:
        answer = asyncio.run_coroutine_threadsafe(self._stream.ask(instruction), self._loop).result()
        if (answered := (answer.message.WhichOneof("msg") or "nothing").rsplit("_", 1)[0]) != asked:
            raise BrokenApp(f"The Flower client was asked for {asked} and answered {answered}.")
        return answer

    def _arrays(self, answer: Answer) -> Arrays:
        given = arrays.from_flower(answer.tensors)
        return arrays.as_declared(given, self.signature) if self.signature else given


def _instruction(work: messages.Work, parameters: Arrays) -> bytes:
    if sum(array.nbytes for array in parameters) > MAX_MESSAGE_BYTES - _HEADERS_BYTES:
        raise TaskRefused("Flower's stream carries models of up to 2 GB; this one is larger.")
    return messages.instruction(work, parameters)


def _config(config: Config) -> dict[str, transport_pb2.Scalar]:
    told = {_ROUND: config["round"], **config} if "round" in config else config
    return {name: _scalar_to_flower(value) for name, value in told.items()}


def _scalar_to_flower(value: ScalarValue) -> transport_pb2.Scalar:
    match value:
        case bool():
            return transport_pb2.Scalar(bool=value)
        case int():
            return transport_pb2.Scalar(sint64=value)
        case float():
            return transport_pb2.Scalar(double=value)
        case str():
            return transport_pb2.Scalar(string=value)
        case bytes():
            return transport_pb2.Scalar(bytes=value)


def _raise_unless_ok(status: transport_pb2.Status) -> None:
    """The only other statuses are that the client lacks the method."""
    if status.code != transport_pb2.OK:
        method = transport_pb2.Code.Name(status.code).removesuffix("_NOT_IMPLEMENTED").lower()
        raise TaskRefused(f"The Flower client has no method {method}.")


def _scalars(values: Mapping[str, transport_pb2.Scalar]) -> Metrics:
    return {name: getattr(scalar, kind) for name, scalar in values.items() if (kind := scalar.WhichOneof("scalar"))}
