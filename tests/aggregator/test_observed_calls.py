"""How each call ended is told to whoever counts them, by names that no peer can invent."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import aio

from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, transfer_pb2
from tests.aggregator.conftest import Federation

Seen = list[tuple[str, str, float]]


@pytest.fixture
async def observed() -> AsyncIterator[tuple[Federation, Seen]]:
    federation, seen = Federation(), []
    await federation.start(observe_call=lambda *call: seen.append(call))
    yield federation, seen
    await federation.close()


async def test_calls_are_told_by_method_and_code(observed: tuple[Federation, Seen]) -> None:
    federation, seen = observed
    agent = await federation.connect("a", automatic=False)
    with contextlib.suppress(aio.AioRpcError):
        await agent.transfer.Download(transfer_pb2.DownloadRequest(task_id="none")).read()
    with contextlib.suppress(aio.AioRpcError):
        await agent.transfer.GetUpload(transfer_pb2.GetUploadRequest(task_id="none"))
    await federation.until(lambda: len(seen) == 2)
    assert Counter(call[:2] for call in seen) == {
        ("Transfer/Download", "NOT_FOUND"): 1, ("Transfer/GetUpload", "NOT_FOUND"): 1,
    }  # fmt: skip

    # A stream that its client cuts, and one of a client that is barred.
    credentials = federation.authority.client("a")
    async with aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel:
        hello = fleet_pb2.AgentMessage(hello=fleet_pb2.Hello(protocol_major=1))
        stream = fleet_pb2_grpc.FleetStub(channel).Connect()
        await stream.write(hello)
        await stream.read()
        stream.cancel()
        await federation.until(lambda: ("Fleet/Connect", "CANCELLED") in [call[:2] for call in seen])
    assert all(seconds >= 0 for _, _, seconds in seen)


async def test_methods_that_peers_invent_have_one_name(observed: tuple[Federation, Seen]) -> None:
    federation, seen = observed
    credentials = federation.authority.client("a")
    federation.registry.add("a", "tests", None)
    async with aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials) as channel:
        for number in range(50):
            call: Any = channel.unary_unary(f"/fedui.v1.Fleet/Invented{number}")
            with pytest.raises(aio.AioRpcError):
                await call(b"")
    await federation.until(lambda: len(seen) == 50)
    assert {call[:2] for call in seen} == {("other", "UNIMPLEMENTED")}


async def test_a_round_counts_its_calls(observed: tuple[Federation, Seen]) -> None:
    federation, seen = observed
    await federation.connect("a")
    await federation.connect("b")
    run = federation.add_run(clients=2)
    assert await asyncio.wait_for(federation.engine.run(run.spec.run_id), 30)
    counted = Counter(call[:2] for call in seen)
    assert counted["Transfer/Upload", "OK"] == 3  # of the initial model, and of two updates
    assert counted["Transfer/Download", "OK"] >= 2
