"""What hostile peers send ends as one failed participation or as a refused connection, with a logged reason, and the run goes on.

How slow transfers end is in test_uploads.py, floods and the memory that they take in tests/integration/test_floods.py, a token that is
guessed a thousand times in tests/fedui/test_admission.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc import aio

from aggregator.core.round import Outcome
from aggregator.ports import AgentInfo, RunOutcome
from aggregator.transport import fleet
from aggregator.transport.connections import ConnectionLimits
from aggregator.transport.identity import URI_PREFIX
from fedui.clients.pki import CLOCK_SKEW
from protos import limits
from protos.fedui.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    task_pb2,
    tensor_pb2,
    transfer_pb2,
    transfer_pb2_grpc,
)
from tests.aggregator.conftest import Federation
from tests.support.authority import TestAuthority
from tests.support.hostile import DEEDS, insist
from tests.support.scripted_agent import ScriptedAgent

HOUR = timedelta(hours=1)


@asynccontextmanager
async def a_run_that_goes_on(federation: Federation) -> AsyncIterator[None]:
    """Of one honest client, while a hostile peer does its worst."""
    good = await federation.connect("good", automatic=False)
    running = asyncio.create_task(federation.run(clients=1, evaluate=False))
    task = await asyncio.wait_for(good.tasks.get(), 10)
    yield
    await good.do(task)
    await good.do(await asyncio.wait_for(good.tasks.get(), 10))
    assert (await running).outcome is RunOutcome.COMPLETED


async def fit_task(agent: ScriptedAgent) -> task_pb2.Task:
    """On the way to it, the agent begins the run if it is asked to."""
    while (task := await asyncio.wait_for(agent.tasks.get(), 10)).kind != task_pb2.TASK_KIND_FIT:
        await agent.do(task)
    return task


# --- what may become part of a model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", DEEDS)
async def test_a_bad_update_fails_that_participation_with_a_reason(federation: Federation, deed: str) -> None:
    does, reason = DEEDS[deed]
    await federation.connect("good", step=2.0)
    bad = await federation.connect("bad", automatic=False)
    bad.keep_beating(0.5)
    running = asyncio.create_task(federation.run(clients=2, evaluate=False))
    await insist(bad, await fit_task(bad), does)
    run = await running
    assert run.outcome is RunOutcome.COMPLETED
    assert federation.models.saved[run.models[1].key]["w"].tolist() == [[2.0] * 3] * 4
    (part,) = [p for p in run.rounds[1, 1].participations if p.client_id == "bad"]
    assert part.outcome in (Outcome.REJECTED, Outcome.FAILED)
    assert re.search(reason, part.reason), part.reason
    assert any(e.kind == "client.failed" and re.search(reason, e.message) for e in federation.sink.events)


async def test_a_replayed_update_counts_once(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running = asyncio.create_task(federation.run(clients=1, num_rounds=2, evaluate=False))
    first = await fit_task(agent)
    update = agent.trained(await agent.download(first))
    assert not (await agent.upload(first, update)).duplicate
    agent.report(first)
    second = await fit_task(agent)
    with pytest.raises(aio.AioRpcError, match="no such task, or its round was closed"):
        await agent.upload(first, update)
    await agent.do(second)
    run = await running
    assert federation.models.saved[run.models[2].key]["w"].tolist() == [[2.0] * 3] * 4


async def test_a_late_update_is_refused(federation: Federation) -> None:
    await federation.connect("good")
    late = await federation.connect("late", automatic=False)
    running = asyncio.create_task(federation.run(clients=2, deadline=1.0, evaluate=False))
    task = await fit_task(late)
    await asyncio.wait_for(late.cancelled.get(), 10)
    with pytest.raises(aio.AioRpcError, match="Too late by"):
        await late.upload(task, late.initial())
    run = await running
    assert {p.client_id: p.outcome for p in run.rounds[1, 1].participations} == {
        "good": Outcome.COMPLETED,
        "late": Outcome.LATE,
    }


@pytest.mark.parametrize("place", ["tests", "another federation"])
async def test_nobody_reaches_anothers_task(federation: Federation, place: str) -> None:
    agent = await federation.connect("a", automatic=False, labels={"chosen": "yes"})
    thief = await federation.connect("z", automatic=False, federation_id=place)
    running = asyncio.create_task(federation.run(clients=1, labels={"chosen": "yes"}, evaluate=False))
    task = await fit_task(agent)
    for task_id in (task.task_id, "", "\0", "x" * 1_000_000):
        theirs = task_pb2.Task(task_id=task_id, model=task.model)
        for call in (
            thief.upload(theirs, thief.initial()),
            thief.transfer.GetUpload(transfer_pb2.GetUploadRequest(task_id=task_id)),
            thief.download(theirs),
        ):
            with pytest.raises(aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        thief.report(theirs, task_pb2.TASK_OUTCOME_FAILED, reason="sabotage")
    await agent.do(task)
    assert (await running).outcome is RunOutcome.COMPLETED
    assert "client.failed" not in federation.sink.kinds()


# --- who may connect -------------------------------------------------------------------------------------------------

Credentials = Callable[[TestAuthority], grpc.ChannelCredentials]


def of_another(name: str) -> Credentials:
    def credentials(authority: TestAuthority) -> grpc.ChannelCredentials:
        other = TestAuthority(name)
        other.pem = authority.pem  # trusts our server, but is not trusted by it
        return other.client("a")

    return credentials


def named(*names: str) -> Credentials:
    uris = [x509.UniformResourceIdentifier(name) for name in names]
    return lambda authority: authority.naming(*uris)


def shown_by_the_server(authority: TestAuthority) -> grpc.ChannelCredentials:
    tls = authority.server()
    return grpc.ssl_channel_credentials(authority.pem, tls.key, tls.certificate)


TLS = grpc.StatusCode.UNAVAILABLE
NAMELESS = UNKNOWN = grpc.StatusCode.UNAUTHENTICATED
BARRED = grpc.StatusCode.PERMISSION_DENIED

CERTIFICATES: dict[str, tuple[Credentials, grpc.StatusCode, str]] = {
    "none": (lambda authority: grpc.ssl_channel_credentials(authority.pem), TLS, "DID_NOT_RETURN_A_CERTIFICATE"),
    "of another authority": (of_another("Other CA"), TLS, "CERTIFICATE_VERIFY_FAILED"),
    "forged with our authority's name": (of_another("Test CA"), TLS, "certificate signature failure"),
    "expired": (lambda authority: authority.client("a", -HOUR / 60), TLS, "certificate has expired"),
    "not good yet by the server's clock": (
        lambda authority: authority.client("a", 2 * HOUR, begins=HOUR),
        TLS,
        "certificate is not yet valid",
    ),
    "the server's own": (shown_by_the_server, NAMELESS, "names no client"),
    "without a name": (named(), NAMELESS, "names no client"),
    "with two names": (named(f"{URI_PREFIX}a", f"{URI_PREFIX}good"), NAMELESS, "names no client"),
    "with a name of another kind": (named("https://a.example"), NAMELESS, "names no client"),
    "of a client that isn't known": (lambda authority: authority.client("nobody"), UNKNOWN, "doesn't know this client"),
    "of a revoked client": (lambda authority: authority.client("revoked"), BARRED, "revoked"),
}
"""Of each the status that the peer gets, and what is logged."""


@pytest.mark.parametrize("certificate", CERTIFICATES)
async def test_a_certificate_that_will_not_do_is_refused(
    federation: Federation, certificate: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    credentials, status, reason = CERTIFICATES[certificate]
    caplog.set_level("INFO")
    federation.registry.add("a")
    federation.registry.add("revoked")
    federation.bar("revoked")
    async with a_run_that_goes_on(federation):
        address = f"127.0.0.1:{federation.engine.port}"
        for method in (_connects, _downloads, _confirms):
            async with aio.secure_channel(address, credentials(federation.authority)) as channel:
                with pytest.raises(aio.AioRpcError) as caught:
                    await method(channel)
                assert caught.value.code() is status
    assert re.search(reason, caplog.text + capfd.readouterr().err)
    assert set(federation.registry.online) <= {"good"}


async def _connects(channel: aio.Channel) -> None:
    await fleet_pb2_grpc.FleetStub(channel).Connect().read()  # refused before it says anything


async def _downloads(channel: aio.Channel) -> None:
    await transfer_pb2_grpc.TransferStub(channel).Download(transfer_pb2.DownloadRequest(task_id="t")).read()


async def _confirms(channel: aio.Channel) -> None:
    await identity_pb2_grpc.IdentityStub(channel).Confirm(identity_pb2.ConfirmRequest())


async def test_an_agent_whose_clock_is_an_hour_behind_can_connect_and_one_a_day_behind_cannot() -> None:
    """To its eyes the server's certificate begins so much later."""
    for behind, welcome in ((HOUR, True), (24 * HOUR, False)):
        federation = Federation()
        begins = behind - CLOCK_SKEW
        await federation.start(tls=federation.authority.server(begins))
        federation.registry.add("a")
        credentials = federation.authority.client("a")
        async with aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel:
            if welcome:
                await fleet_pb2_grpc.FleetStub(channel).Connect(iter([hello()])).read()
            else:
                with pytest.raises(aio.AioRpcError, match="not yet valid"):
                    await _connects(channel)
        await federation.close()


# --- what an agent says first ----------------------------------------------------------------------------------------


def hello(**fields: Any) -> fleet_pb2.AgentMessage:
    return fleet_pb2.AgentMessage(hello=fleet_pb2.Hello(**{"protocol_major": limits.PROTOCOL_MAJOR} | fields))


def offering(count: int = 1, **fields: Any) -> fleet_pb2.AgentMessage:
    return hello(apps=[fleet_pb2.AppOffer(**{"name": "toy", "version": "1"} | fields)] * count)


def model(*shape: int, count: int = 1) -> tensor_pb2.ModelSignature:
    tensors = [tensor_pb2.TensorSpec(name=f"w{i}", dtype="float32", shape=shape) for i in range(count)]
    return tensor_pb2.ModelSignature(tensors=tensors)


def field(number: int, content: bytes) -> bytes:
    """A field with a length, as protobuf writes it; up to 2 MiB."""
    sizes = [len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, len(content) >> 14]
    return bytes([number << 3 & 0x7F | 2 | 0x80, number >> 4, *sizes]) + content


GREETING = hello().SerializeToString()
WELCOME = "welcome"

GREETINGS: dict[str, tuple[bytes | fleet_pb2.AgentMessage, str]] = {
    "a protocol too old": (hello(protocol_major=0), "The agent speaks protocol 0, this server 1"),
    "a protocol too new": (hello(protocol_major=2**32 - 1), "speaks protocol 4294967295"),
    "a minor version too new": (hello(protocol_minor=2**32 - 1), WELCOME),
    "unknown fields": (hello().SerializeToString() + field(900, b"from the future") * 100, WELCOME),
    "an unknown kind of message": (field(901, b"x"), "must be a hello"),
    "a heartbeat": (fleet_pb2.AgentMessage(heartbeat=fleet_pb2.Heartbeat()), "must be a hello"),
    "nothing": (b"", "must be a hello"),
    "too many apps": (offering(limits.MAX_APPS + 1), "at most 64 apps"),
    "too many tensors": (offering(signature=model(count=limits.MAX_TENSORS + 1)), "at most 10000 tensors"),
    "too many tensors in all apps": (offering(3, signature=model(count=7_000)), "at most 20,000 tensors, not 21,000"),
    "too many dimensions": (offering(signature=model(*[1] * 500_000)), "dimensions"),
    "a model too large": (offering(signature=model(2**62, 2**62)), "the limit is"),
    "a reserved name": (
        offering(signature=tensor_pb2.ModelSignature(tensors=[tensor_pb2.TensorSpec(name="~c", dtype="int8")])),
        "reserved name",
    ),
    "a name too long": (offering(name="x" * 64), "1 to 63 characters"),
    "an escape sequence for a name": (offering(name="toy\x1b[2J"), "control character"),
    "NUL in a column": (offering(columns=["age\0"]), "control character"),
    "too many columns": (offering(columns=["age"] * 257), "at most 256 columns"),
    "a huge map": (
        hello(properties={str(i): tensor_pb2.Scalar(bool=True) for i in range(60_000)}),
        "60000 named values",
    ),
    "NUL in a property": (hello(properties={"a": tensor_pb2.Scalar(string="\0")}), "a text with NUL"),
    "tasks that it never had": (hello(tasks_in_hand=[f"{i}" for i in range(100_000)]), WELCOME),
    "invalid UTF-8": (field(1, b"\x08\x01" + field(4, b"\xff\xfe")), "can't be read"),
    "groups nested without end": (b"\x9b\x38" * 500_000, "can't be read"),
    "messages nested without end": (field(1, field(5, field(4, b"\x0a" * 100_000))), "can't be read"),
    "garbage": (bytes(range(256)) * 100, "can't be read"),
    "more than a message may have": (hello(agent_version="x" * 5_000_000), "larger than max"),
}
"""Of each what the server says to it."""


@pytest.mark.parametrize("greeting", GREETINGS)
async def test_a_first_message_that_will_not_do_is_refused(
    federation: Federation, greeting: str, caplog: pytest.LogCaptureFixture
) -> None:
    message, answer = GREETINGS[greeting]
    federation.registry.add("a")
    async with a_run_that_goes_on(federation):
        content = message if isinstance(message, bytes) else message.SerializeToString()
        assert re.search(answer, await greet(federation, content))
    if answer is not WELCOME and "larger than" not in answer:
        assert re.search(answer, caplog.text)
    await federation.until(lambda: set(federation.registry.online) <= {"good"})


async def greet(federation: Federation, content: bytes, client_id: str = "a") -> str:
    """The server's answer to these bytes."""
    credentials = federation.authority.client(client_id)
    async with aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel:
        connect: Any = channel.stream_stream("/fedui.v1.Fleet/Connect")
        try:
            said = await asyncio.wait_for(connect(iter([content])).read(), 10)
        except aio.AioRpcError as error:
            return error.details() or ""
        answer = fleet_pb2.ServerMessage.FromString(said)
        return answer.goodbye.reason if answer.HasField("goodbye") else str(answer.WhichOneof("body"))


async def knock(federation: Federation, client_id: str = "a") -> str:
    """Why a client is refused before it says anything."""
    credentials = federation.authority.client(client_id)
    async with aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await asyncio.wait_for(fleet_pb2_grpc.FleetStub(channel).Connect().read(), 10)
        return caught.value.details() or ""


async def test_who_says_nothing_is_not_waited_for(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "HELLO_SECONDS", 0.1)
    federation.registry.add("a")
    credentials = federation.authority.client("a")
    async with (
        a_run_that_goes_on(federation),
        aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel,
    ):
        answer: Any = await asyncio.wait_for(fleet_pb2_grpc.FleetStub(channel).Connect().read(), 10)
        assert "No first message" in answer.goodbye.reason


# --- what is no gRPC at all ------------------------------------------------------------------------------------------

BYTES: dict[str, tuple[bytes, str]] = {
    "plain HTTP": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP_REQUEST"),
    "gRPC without TLS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), "Handshake failed"),
    "garbage": (bytes(range(1, 256)) * 100, "Handshake failed"),
    "a TLS record that lies about its length": (b"\x16\x03\x01\xff\xff" + bytes(100_000), "Handshake failed"),
}


@pytest.mark.parametrize("kind", BYTES)
async def test_what_is_no_grpc_is_refused(federation: Federation, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, reason = BYTES[kind]
    async with a_run_that_goes_on(federation):
        reader, writer = await asyncio.open_connection("127.0.0.1", federation.engine.port)
        writer.write(content)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert reason in capfd.readouterr().err


async def test_a_compressed_message_is_not_blown_up(federation: Federation) -> None:
    federation.registry.add("a")
    bomb = hello(agent_version="x" * 30_000_000)
    credentials = federation.authority.client("a")
    async with (
        a_run_that_goes_on(federation),
        aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel,
    ):
        stream = fleet_pb2_grpc.FleetStub(channel).Connect(iter([bomb]), compression=grpc.Compression.Gzip)
        with pytest.raises(aio.AioRpcError, match="larger than max"):
            await stream.read()


# --- too much of it --------------------------------------------------------------------------------------------------


async def test_hello_is_said_once(federation: Federation) -> None:
    agent = await federation.connect("a")
    agent.send(hello=hello().hello)
    assert "hello once" in (await asyncio.wait_for(agent.goodbye, 10)).reason


async def test_a_client_that_connects_again_and_again_has_to_wait(limited: Federation) -> None:
    limited.registry.add("a")
    assert [await greet(limited, GREETING) for _ in range(3)] == [WELCOME] * 3
    assert [await knock(limited) for _ in range(2)] == ["This client connects too often: once in 60 s is enough."] * 2
    limited.registry.add("b")
    await limited.connect("b")


async def test_a_client_has_so_many_calls_at_a_time(limited: Federation, caplog: pytest.LogCaptureFixture) -> None:
    agent = await limited.connect("a", automatic=False)
    channels = [aio.secure_channel(f"127.0.0.1:{limited.engine.port}", limited.authority.client("a")) for _ in range(5)]
    calls = [transfer_pb2_grpc.TransferStub(channel).Upload() for channel in channels for _ in range(4)]
    refused = [
        error for error in await asyncio.gather(*map(_code, calls)) if error is grpc.StatusCode.RESOURCE_EXHAUSTED
    ]
    assert len(refused) == 20 - 3, "the client's stream is its fourth call"
    assert caplog.text.count("A client may have 4 calls open at a time") == 1
    assert not agent.goodbye.done()
    for channel in channels:
        await channel.close()


async def _code(call: Any) -> grpc.StatusCode | None:
    try:
        return await asyncio.wait_for(call.code(), 1)
    except TimeoutError:
        return None


@pytest.fixture
async def limited() -> AsyncIterator[Federation]:
    federation = Federation()
    few = ConnectionLimits(calls_at_once=4, connects_at_once=3, connect_seconds=60.0, read_seconds=0.2)
    await federation.start(connection_limits=few)
    yield federation
    await federation.close()


async def test_a_session_ends_whose_peer_reads_nothing(limited: Federation, caplog: pytest.LogCaptureFixture) -> None:
    """It says that it lives, and is never told anything."""
    limited.registry.add("a")
    credentials = limited.authority.client("a")
    window = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
    async with aio.secure_channel(f"127.0.0.1:{limited.engine.port}", credentials, options=window) as channel:
        stream = fleet_pb2_grpc.FleetStub(channel).Connect()
        await stream.write(hello())
        await limited.until(lambda: "a" in limited.registry.online)
        session = limited.engine._hub._sessions["a"]
        task = task_pb2.Task(task_id="x" * 3_000_000)
        for _ in range(3):
            session.send(fleet_pb2.ServerMessage(task=task))
        await limited.until(lambda: "a" not in limited.registry.online)
    assert "reads nothing" in caplog.text


async def test_progress_is_stored_but_a_flood_of_it_is_thinned(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running = asyncio.create_task(federation.run(clients=1, evaluate=False))
    task = await fit_task(agent)
    phases: list[Any] = [task_pb2.PHASE_TRAINING, task_pb2.PHASE_UPLOADING, 99, task_pb2.PHASE_EVALUATING, -1]
    for i in range(50):
        for fraction in (i / 50, float("nan"), float("inf"), 1.0, -1.0):
            progress = task_pb2.Progress(task_id=task.task_id, phase=phases[i % 5], fraction=fraction)
            agent.send(progress=progress)
    agent.send(progress=task_pb2.Progress(task_id=task.task_id, phase=task_pb2.PHASE_DOWNLOADING, fraction=1.0))

    def said() -> list[Any]:
        return [e for e in federation.sink.events if e.kind in ("client.progress", "client.phase")]

    await federation.until(lambda: any(e.data["phase"] == "downloading" for e in said() if "fraction" in e.data))
    assert len(said()) < 40
    assert all(0 <= e.data["fraction"] <= 1 for e in said() if "fraction" in e.data)
    await agent.do(task)
    assert (await running).outcome is RunOutcome.COMPLETED


# --- what others must not suffer from --------------------------------------------------------------------------------


async def test_a_failure_of_the_server_is_told_without_its_words_and_leaves_no_ghost(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(client_id: str, info: AgentInfo) -> None:
        raise ConnectionError("secret of the database")

    federation.registry.add("a")
    with monkeypatch.context() as patch:
        patch.setattr(federation.registry, "connected", fail)
        assert await greet(federation, GREETING) == "The server failed. Its log says why."
    assert not federation.engine._hub._sessions
    assert await greet(federation, GREETING) == WELCOME


async def test_more_agents_than_can_be_taken_up_are_told_at_once_to_come_again(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would give up while they wait, and come again beside what the server still does for them."""
    slow, real, waiting = asyncio.Event(), federation.registry.connected, []

    async def connected(client_id: str, session_id: str, info: AgentInfo) -> None:
        waiting.append(client_id)
        await slow.wait()
        await real(client_id, session_id, info)

    monkeypatch.setattr(federation.registry, "connected", connected)
    names = [f"{number}" for number in range(51)]
    for name in names:
        federation.registry.add(name)
    greetings = [asyncio.create_task(greet(federation, GREETING, name)) for name in names[:50]]
    await federation.until(lambda: len(waiting) == 50)
    assert await knock(federation, names[50]) == "Many agents connect at this moment. Come again."
    slow.set()
    assert await asyncio.gather(*greetings) == [WELCOME] * 50
    assert await greet(federation, GREETING, names[50]) == WELCOME


async def test_figures_that_are_none_reach_no_database(federation: Federation) -> None:
    agent = await federation.connect("a")
    signs = federation.registry.signs
    for cores in (float("nan"), float("inf"), -1.0):
        agent.send(heartbeat=fleet_pb2.Heartbeat(cpu_fraction=cores, memory_bytes=2**64 - 1))
    await federation.until(lambda: "a" in signs and signs["a"].vitals.get("agent_cpu") == 0.0)
    assert signs["a"].vitals == {"agent_cpu": 0.0, "agent_memory": 2**53}


async def test_agents_of_a_server_that_ends_come_again_one_after_the_other(federation: Federation) -> None:
    agents = [await federation.connect(name) for name in "abc"]
    federation.engine._hub.end_all("The server is restarting.", per_second=2.0)
    pauses = [(await asyncio.wait_for(agent.goodbye, 10)).reconnect_after_seconds for agent in agents]
    assert pauses == [1.0, 1.5, 2.0]
