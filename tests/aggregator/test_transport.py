"""The wire: who may connect, and which bytes may become part of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc import aio

from aggregator.ports import RunOutcome
from aggregator.transport.server import PortTaken
from protos import limits
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, task_pb2, transfer_pb2
from protos.tensors import encode
from tests.aggregator.conftest import Federation
from tests.support.authority import TestAuthority
from tests.support.scripted_agent import ScriptedAgent


async def fit_task(federation: Federation, agent: ScriptedAgent, **options: Any) -> tuple[Any, task_pb2.Task]:
    """A running run of one client, and the task that its agent has been given."""
    running = asyncio.create_task(federation.run(clients=1, **options))
    await agent.do(await asyncio.wait_for(agent.tasks.get(), 10))
    return running, await asyncio.wait_for(agent.tasks.get(), 10)


async def refused(call: Any) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    return caught.value


async def refusal_of(call: Any) -> str:
    return (await refused(call)).details() or ""


async def connect_raw(port: int, credentials: grpc.ChannelCredentials) -> fleet_pb2.ServerMessage:
    async with aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        hello = fleet_pb2.Hello(protocol_major=limits.PROTOCOL_MAJOR)
        stream = fleet_pb2_grpc.FleetStub(channel).Connect(iter([fleet_pb2.AgentMessage(hello=hello)]))
        message = await stream.read()
        assert isinstance(message, fleet_pb2.ServerMessage)
        return message


# --- who may connect -------------------------------------------------------------------------------------------------


async def test_an_agent_does_not_trust_a_server_of_another_ca(federation: Federation) -> None:
    credentials = TestAuthority().client("a")
    assert (await refused(connect_raw(federation.engine.port, credentials))).code() is grpc.StatusCode.UNAVAILABLE


async def test_what_an_agent_says_of_itself_can_be_stored(federation: Federation) -> None:
    agent = await federation.connect("a", platform="Linux\0\x1b[2J\n6.1", protocol_minor=2**32 - 1)
    info = federation.registry.online["a"]
    assert (info.platform, info.protocol_minor) == ("Linux  [2J 6.1", limits.PROTOCOL_MINOR)
    agent.send(heartbeat=fleet_pb2.Heartbeat(memory_bytes=2**64 - 1))
    signs = federation.registry.signs
    await federation.until(lambda: "a" in signs and "agent_memory" in signs["a"].vitals)
    assert signs["a"].vitals["agent_memory"] == 2**53


async def test_barring_a_client_ends_its_stream(federation: Federation) -> None:
    agent = await federation.connect("a")
    federation.bar("a")
    federation.engine.look_who_is_barred()
    assert (await asyncio.wait_for(agent.goodbye, 10)).reason == "revoked"
    await federation.until(lambda: "a" not in federation.registry.online)


async def test_a_second_agent_of_one_identity_replaces_the_first(federation: Federation) -> None:
    first = await federation.connect("a")
    await federation.connect("a")
    assert "Another agent" in (await asyncio.wait_for(first.goodbye, 10)).reason
    assert "a" in federation.registry.online


async def test_signs_of_life_are_written_in_bulk_and_silence_ends_a_session() -> None:
    federation = Federation()
    await federation.start(heartbeat_seconds=0.05)
    agent = await federation.connect("a")
    agent.send(heartbeat=fleet_pb2.Heartbeat(cpu_fraction=0.25, memory_bytes=1000))
    await federation.until(lambda: federation.registry.signs.get("a") is not None)
    await federation.until(lambda: federation.registry.signs["a"].vitals.get("agent_memory") == 1000)
    assert "No heartbeat" in (await asyncio.wait_for(agent.goodbye, 10)).reason
    await federation.close()


async def test_a_port_that_is_taken_is_named(federation: Federation) -> None:
    second = Federation()
    with pytest.raises(PortTaken, match=str(federation.engine.port)):
        await second.start(federation.engine.port)


# --- what may become part of a model ---------------------------------------------------------------------------------


async def test_an_upload_goes_on_where_it_was_cut(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running, task = await fit_task(federation, agent)
    update = agent.trained(await agent.download(task))
    data = bytes(encode(update))
    whole = agent.header(task, update, data)
    cut = agent.transfer.Upload()
    for message in _messages(whole, data[:64]):
        await cut.write(message)
    status = transfer_pb2.UploadStatus()
    while status.received < 64:
        status = await agent.transfer.GetUpload(transfer_pb2.GetUploadRequest(task_id=task.task_id))
    cut.cancel()
    rest = agent.header(task, update, data, offset=64)
    assert not (await agent.send_upload(rest, data[64:])).duplicate
    await agent.do(await asyncio.wait_for(agent.tasks.get(), 10))
    run = await running
    assert federation.models.saved[run.models[1].key]["w"].tolist() == update["w"].tolist()


async def test_an_upload_sent_twice_counts_once(federation: Federation) -> None:
    await federation.connect("b", step=3.0)
    agent = await federation.connect("a", automatic=False, step=1.0)
    running, task = await fit_task(federation, agent)
    del running
    update = agent.trained(await agent.download(task))
    assert not (await agent.upload(task, update)).duplicate
    assert (await agent.upload(task, update)).duplicate
    status = await agent.transfer.GetUpload(transfer_pb2.GetUploadRequest(task_id=task.task_id))
    assert status.complete
    assert "Another update" in await refusal_of(agent.upload(task, agent.initial()))


async def test_a_download_goes_on_at_an_offset(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    _, task = await fit_task(federation, agent)

    async def read(offset: int) -> bytes:
        request = transfer_pb2.DownloadRequest(task_id=task.task_id, offset=offset)
        return b"".join([chunk.data async for chunk in agent.transfer.Download(request)])

    whole = await read(0)
    assert len(whole) == task.model.size
    assert await read(100) == whole[100:]
    assert await read(len(whole)) == b""
    assert (await refused(read(len(whole) + 1))).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_after_a_refused_upload_the_right_one_still_counts(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running, task = await fit_task(federation, agent)
    update = agent.trained(await agent.download(task))
    data = bytes(encode(update))
    header = agent.header(task, update, data)
    assert "ended after 10 of" in await refusal_of(agent.transfer.Upload(_messages(header, data[:10])))
    del running
    assert not (await agent.upload(task, update)).duplicate


async def test_an_evaluation_without_a_finite_loss_does_not_count(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running, task = await fit_task(federation, agent)
    await agent.do(task)
    evaluation = await asyncio.wait_for(agent.tasks.get(), 10)
    agent.report(evaluation, loss=float("nan"), num_examples=5)
    run = await running
    assert run.outcome is RunOutcome.COMPLETED
    assert not [m for m in run.metrics(1) if m.source == "federated"]


def _messages(header: transfer_pb2.UploadHeader, data: bytes) -> Iterator[transfer_pb2.UploadMessage]:
    """A header and one chunk."""
    return iter(
        [
            transfer_pb2.UploadMessage(header=header),
            transfer_pb2.UploadMessage(chunk=transfer_pb2.Chunk(data=data)),
        ]
    )
