"""The bridge between a server and Flower clients, which a script plays."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from client_agent.errors import ConfigurationError, Dismissed
from client_agent.flower.bridge import Listen, Place, serve
from client_agent.flower.offer import Offer
from client_agent.identity import Home
from protos.convert import Scalars
from protos.fedui.v1 import fleet_pb2, task_pb2
from protos.flower import transport_pb2
from protos.flower.transport_pb2 import ClientMessage, Parameters, ServerMessage
from tests.client_agent.server import ScriptedServer

MODEL = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
OFFER = Offer("toy", "1.0", ["weight"])
OK = transport_pb2.Status()

StartBridge = Callable[..., str]


def parameters(*arrays: NDArray[Any]) -> Parameters:
    files = [io.BytesIO() for _ in arrays]
    for file, array in zip(files, arrays, strict=True):
        np.save(file, array, allow_pickle=False)
    return Parameters(tensors=[file.getvalue() for file in files], tensor_type="numpy.ndarray")


class FlowerClient:
    """Flower's side of the stream. An async context manager, which cuts the connection as a dying process would."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        join = self._channel.stream_stream(
            "/flwr.proto.FlowerService/Join", ClientMessage.SerializeToString, ServerMessage.FromString
        )
        self.stream = join()

    async def __aenter__(self) -> FlowerClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stream.cancel()
        await self._channel.close()

    async def asked(self, kind: str) -> ServerMessage:
        async with asyncio.timeout(20):
            message = await self.stream.read()
        assert isinstance(message, ServerMessage), "the bridge has ended the stream"
        assert message.WhichOneof("msg") == kind
        return message

    async def answer(self, **body: Any) -> None:
        await self.stream.write(ClientMessage(**body))

    async def introduce(self, *arrays: NDArray[Any]) -> None:
        """Tell of a model; without arrays, that of the tests."""
        await self.asked("get_properties_ins")
        properties = {"rooms": transport_pb2.Scalar(uint64=3)}
        await self.answer(get_properties_res=transport_pb2.GetPropertiesRes(status=OK, properties=properties))
        await self.asked("get_parameters_ins")
        model = parameters(*(arrays or [np.zeros((2, 3), np.float32)]))
        await self.answer(get_parameters_res=transport_pb2.GetParametersRes(status=OK, parameters=model))

    async def refusal(self) -> str:
        """The error with which the bridge ends the stream."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(20):
                await self.stream.read()
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        return str(caught.value.details())


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
async def bridges() -> AsyncIterator[list[asyncio.Task[None]]]:
    """Whatever is put in ends with the test."""
    running: list[asyncio.Task[None]] = []
    yield running
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


@pytest.fixture
def bridge(server: ScriptedServer, bridges: list[asyncio.Task[None]], tmp_path: Path) -> StartBridge:
    def start(offer: Offer = OFFER, places: int = 1) -> str:
        homes = [Home(tmp_path / str(number)) for number in range(places)]
        for home in homes:
            home.save(server.authority.identity(server.address))
        address = free_address()
        bridges.append(asyncio.create_task(serve(Listen(address), list(map(Place, homes)), offer, max_delay=0.05)))
        return address

    return start


async def test_a_flower_client_is_offered_with_its_parameters_under_the_owners_names(
    server: ScriptedServer, bridge: StartBridge
) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        await server.until(lambda: bool(server.hellos))
    (app,) = server.hellos[0].apps
    assert (app.name, app.version, app.framework) == ("toy", "1.0", "flower")
    (tensor,) = app.signature.tensors
    assert (tensor.name, tensor.dtype, list(tensor.shape)) == ("weight", "float32", [2, 3])
    assert server.hellos[0].properties["rooms"].sint64 == 3


async def test_a_task_to_fit_is_an_instruction_and_its_answer_an_update(
    server: ScriptedServer, bridge: StartBridge
) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        config: Scalars = {"epochs": 2, "pace": "slow", "rate": 0.5, "careful": True, "key": b"\0"}
        server.push_task("t", task_pb2.TASK_KIND_FIT, MODEL, config)
        asked = (await client.asked("fit_ins")).fit_ins
        told = {name: getattr(scalar, str(scalar.WhichOneof("scalar"))) for name, scalar in asked.config.items()}
        assert told == {**config, "run_id": "r", "round": 1, "server_round": 1}
        (given,) = [np.load(io.BytesIO(tensor)) for tensor in asked.parameters.tensors]
        np.testing.assert_array_equal(given, MODEL["weight"])
        answer = transport_pb2.FitRes(status=OK, parameters=parameters(given.astype(np.float64) + 1), num_examples=7)
        answer.metrics["loss"].double = 0.25
        await client.answer(fit_res=answer)
        assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    assert server.headers[0].num_examples == 7
    assert server.headers[0].metrics["loss"].double == 0.25
    sent = np.frombuffer(server.uploads["t"], np.float32, 6).reshape(2, 3)
    np.testing.assert_array_equal(sent, MODEL["weight"] + 1)


async def test_an_evaluation_brings_loss_and_metrics(server: ScriptedServer, bridge: StartBridge) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        server.push_task("t", task_pb2.TASK_KIND_EVALUATE, MODEL)
        await client.asked("evaluate_ins")
        await client.answer(evaluate_res=transport_pb2.EvaluateRes(status=OK, loss=0.5, num_examples=3))
        result = await server.result("t")
    assert (result.outcome, result.loss, result.num_examples) == (task_pb2.TASK_OUTCOME_COMPLETED, 0.5, 3)


async def test_a_method_that_the_client_lacks_is_refused_and_no_failure(
    server: ScriptedServer, bridge: StartBridge
) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        server.push_task("t", task_pb2.TASK_KIND_EVALUATE, MODEL)
        await client.asked("evaluate_ins")
        lacking = transport_pb2.Status(code=transport_pb2.EVALUATE_NOT_IMPLEMENTED)
        await client.answer(evaluate_res=transport_pb2.EvaluateRes(status=lacking))
        result = await server.result("t")
    assert (result.outcome, result.reason) == (
        task_pb2.TASK_OUTCOME_REFUSED,
        "The Flower client has no method evaluate.",
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"fit_res": transport_pb2.FitRes(parameters=parameters(np.zeros(5, np.float32)))}, "has shape (5,)"),
        ({"fit_res": transport_pb2.FitRes(parameters=Parameters(tensors=[b"junk"]))}, "no .npy file"),
        ({"fit_res": transport_pb2.FitRes(parameters=parameters(np.full((2, 3), np.nan)))}, "NaN"),
        ({"evaluate_res": transport_pb2.EvaluateRes()}, "was asked for fit and answered evaluate"),
        ({}, "answered nothing"),
    ],
)
async def test_an_answer_that_makes_no_sense_fails_that_task_alone(
    server: ScriptedServer, bridge: StartBridge, answer: dict[str, Any], reason: str
) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        server.push_task("t", task_pb2.TASK_KIND_FIT, MODEL)
        await client.asked("fit_ins")
        await client.answer(**answer)
        result = await server.result("t")
        assert result.outcome == task_pb2.TASK_OUTCOME_FAILED
        assert reason in result.reason
        server.push_task("u", task_pb2.TASK_KIND_FIT, MODEL)
        await client.asked("fit_ins")


async def test_a_client_that_leaves_at_work_fails_its_task_and_another_takes_the_place(
    server: ScriptedServer, bridge: StartBridge
) -> None:
    address = bridge()
    async with FlowerClient(address) as client:
        await client.introduce()
        server.push_task("t", task_pb2.TASK_KIND_FIT, MODEL)
        await client.asked("fit_ins")
    result = await server.result("t")
    assert result.outcome == task_pb2.TASK_OUTCOME_FAILED
    assert "left while it was at work" in result.reason
    async with FlowerClient(address) as client:
        await client.introduce()
        await server.until(lambda: len(server.hellos) == 2)


async def test_the_clients_of_a_bridge_share_one_download_of_a_model(
    server: ScriptedServer, bridge: StartBridge
) -> None:
    server.heartbeat_seconds = 60  # so that each of the two agents takes one of the two tasks
    address = bridge(places=2)
    async with FlowerClient(address) as first, FlowerClient(address) as second:
        for client in (first, second):
            await client.introduce()
        await server.until(lambda: len(server.hellos) == 2)
        for task_id in ("t", "u"):
            server.push_task(task_id, task_pb2.TASK_KIND_FIT, MODEL)
        for client in (first, second):
            (given,) = (await client.asked("fit_ins")).fit_ins.parameters.tensors
            np.testing.assert_array_equal(np.load(io.BytesIO(given)), MODEL["weight"])
        assert len(server.download_offsets) == 1
        for client in (first, second):
            await client.answer(fit_res=transport_pb2.FitRes(parameters=parameters(MODEL["weight"]), num_examples=1))
        for task_id in ("t", "u"):
            await server.result(task_id)
        server.push_task("v", task_pb2.TASK_KIND_FIT, {"weight": MODEL["weight"] + 1})
        await server.until(lambda: len(server.download_offsets) == 2)


async def test_whoever_finds_no_place_waits_for_one(server: ScriptedServer, bridge: StartBridge) -> None:
    address = bridge(places=2)
    async with FlowerClient(address) as first, FlowerClient(address) as second:
        await first.introduce()
        await second.introduce()
        await server.until(lambda: len(server.hellos) == 2)
        async with FlowerClient(address) as third:
            first.stream.cancel()
            await third.introduce()
            await server.until(lambda: len(server.hellos) == 3)


async def without_get_parameters(client: FlowerClient) -> None:
    await client.asked("get_properties_ins")
    await client.answer(
        get_properties_res=transport_pb2.GetPropertiesRes(
            status=transport_pb2.Status(code=transport_pb2.GET_PROPERTIES_NOT_IMPLEMENTED)
        )
    )
    await client.asked("get_parameters_ins")
    await client.answer(
        get_parameters_res=transport_pb2.GetParametersRes(
            status=transport_pb2.Status(code=transport_pb2.GET_PARAMETERS_NOT_IMPLEMENTED)
        )
    )


async def with_other_tensors(client: FlowerClient) -> None:
    await client.introduce(np.zeros(3), np.zeros(3))


async def with_what_no_model_has(client: FlowerClient) -> None:
    await client.introduce(np.zeros(3, np.complex128))


@pytest.mark.parametrize(
    ("introduce", "reason"),
    [
        (without_get_parameters, "has no method get_parameters. .* --initial-model"),
        (with_other_tensors, "names 1 tensors, but its client returned 2"),
        (with_what_no_model_has, "dtype 'complex128'"),
    ],
)
async def test_a_client_whose_model_does_not_do_is_told_so_and_the_place_stays_free(
    server: ScriptedServer, bridge: StartBridge, introduce: Callable[[FlowerClient], Awaitable[None]], reason: str
) -> None:
    address = bridge()
    async with FlowerClient(address) as client:
        await introduce(client)
        refusal = await client.refusal()
    assert re.search(reason, refusal)
    assert not server.hellos
    async with FlowerClient(address) as client:
        await client.introduce()
        await server.until(lambda: bool(server.hellos))


async def test_a_file_says_what_a_run_begins_with(server: ScriptedServer, bridge: StartBridge, tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", weight=MODEL["weight"])
    async with FlowerClient(bridge(Offer.of("toy", "1.0", None, tmp_path / "model.npz"))) as client:
        await client.asked("get_properties_ins")
        await client.answer(get_properties_res=transport_pb2.GetPropertiesRes())
        server.push_task("t", task_pb2.TASK_KIND_INITIALISE)
        assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    assert server.headers[0].signature.tensors[0].name == "weight"
    np.testing.assert_array_equal(np.frombuffer(server.uploads["t"], np.float32, 6), MODEL["weight"].ravel())


async def test_the_end_of_the_bridge_lets_clients_end(
    server: ScriptedServer, bridge: StartBridge, bridges: list[asyncio.Task[None]]
) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        await server.until(lambda: bool(server.hellos))
        bridges[0].cancel()
        assert (await client.asked("reconnect_ins")).reconnect_ins.seconds == 0
        await client.answer(disconnect_res=transport_pb2.DisconnectRes(reason=1))
        await client.stream.done_writing()
        async with asyncio.timeout(20):
            assert await client.stream.read() is grpc.aio.EOF
            assert await client.stream.code() == grpc.StatusCode.OK


async def test_a_bridge_whose_only_identity_is_dismissed_ends_with_its_clients(
    server: ScriptedServer, bridge: StartBridge, bridges: list[asyncio.Task[None]]
) -> None:
    async with FlowerClient(bridge()) as client:
        await client.introduce()
        await server.until(lambda: bool(server.hellos))
        server.push(goodbye=fleet_pb2.Goodbye(reason="Revoked.", reconnect_after_seconds=-1))
        await client.asked("reconnect_ins")
        await client.answer(disconnect_res=transport_pb2.DisconnectRes(reason=1))
        await client.stream.done_writing()
        with pytest.raises(Dismissed, match="Revoked"):
            async with asyncio.timeout(20):
                await bridges[0]


async def test_a_port_that_is_taken_is_an_error(bridge: StartBridge, bridges: list[asyncio.Task[None]]) -> None:
    address = bridge()
    async with FlowerClient(address) as client:
        await client.asked("get_properties_ins")  # so it listens
        second = asyncio.create_task(serve(Listen(address), [], OFFER))
        bridges.append(second)
        with pytest.raises(ConfigurationError, match="can't be listened on"):
            await second


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "[::]:8080", "8.8.8.8:8080"])
def test_only_the_owner_opens_the_bridge_to_other_machines(address: str) -> None:
    with pytest.raises(ConfigurationError, match="--allow-remote"):
        Listen.parse(address, allow_remote=False)
    assert Listen.parse(address, allow_remote=True).address == address


@pytest.mark.parametrize("address", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080"])
def test_loopback_needs_no_leave(address: str) -> None:
    assert Listen.parse(address, allow_remote=False).address == address


@pytest.mark.parametrize("address", ["8080", "127.0.0.1", "127.0.0.1:http"])
def test_an_address_has_host_and_port(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        Listen.parse(address, allow_remote=False)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_a_model_file_that_is_none_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.npz"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"model\.npz is no file of numpy\.savez"):
        Offer.of("toy", "1", None, file)
