"""Hostile agents against the engine in a process of its own, over the database: what they do to it, and what it takes of memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from grpc import aio

from aggregator.core.config import CohortConfig, EvaluationConfig, FaultsConfig, StrategyConfig
from fedui.catalog.models import App
from fedui.clients.models import Client
from fedui.federations.models import Federation
from fedui.runs.models import Event, Participation, Run
from fedui.runs.services import create_run
from fedui.strategies.services import create_strategy
from protos import limits
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, task_pb2, tensor_pb2, transfer_pb2, transfer_pb2_grpc
from tests.support.domain import a_federation, a_user
from tests.support.engine_process import EngineProcess, EnrolledClients, engine_process
from tests.support.hostile import DEEDS, Deed, insist, update
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent

pytestmark = pytest.mark.django_db(transaction=True)

FLOOD_SECONDS = 6.0
MOST_GROWTH = 96 * 2**20
"""Nine floods at a time. What the peers send in these seconds is many times that."""


class Place:
    """A federation, its engine and its agents."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine, self.clients = engine, EnrolledClients()
        self.stack = contextlib.AsyncExitStack()
        self.ids: dict[str, str] = {}
        self.at_work: dict[str, tuple[ScriptedAgent, task_pb2.Task]] = {}

    async def prepare(self, names: list[str], **strategy: Any) -> Run:
        return await sync_to_async(self._prepare)(names, strategy)

    def _prepare(self, names: list[str], strategy: dict[str, Any]) -> Run:
        owner = a_user("owner")
        self.federation: Federation = a_federation("hearts", owner)
        self.ids = {name: self.clients.enrol(self.federation, name) for name in names}
        app = App.objects.create(federation=self.federation, name="toy", version="1", signature=SIGNATURE.to_json())
        config = StrategyConfig(evaluation=EvaluationConfig(federated=False, server=False), **strategy)
        version = create_strategy(self.federation, owner, name="plain", config=config).latest
        return create_run(self.federation, owner, name="r", strategy_version=version, app=app, num_rounds=1, seed=1)

    async def connect(self, name: str, kind: type[ScriptedAgent] = ScriptedAgent, **options: Any) -> ScriptedAgent:
        authority: Any = self.clients
        agent = kind(authority, self.engine.port, self.ids[name], **options)
        await self.stack.enter_async_context(agent)
        agent.keep_beating(2.0)
        return agent

    def channel(self, name: str) -> aio.Channel:
        return aio.secure_channel(
            f"127.0.0.1:{self.engine.port}",
            self.clients.client(self.ids[name]),
            options=[("grpc.use_local_subchannel_pool", 1)],
        )

    async def until_ended(self, run: Run) -> None:
        async with asyncio.timeout(60):
            while not run.is_terminal:
                await asyncio.sleep(0.1)
                await run.arefresh_from_db()


@pytest.fixture
def engine(transactional_db: None, settings: Any, tmp_path: Path) -> Iterator[EngineProcess]:
    settings.PKI_DIR = tmp_path / "pki"
    with engine_process(tmp_path) as engine:
        yield engine


@pytest.fixture
async def place(engine: EngineProcess) -> AsyncIterator[Place]:
    place = Place(engine)
    yield place
    await place.stack.aclose()


class Asked(ScriptedAgent):
    """Keeps what it is asked to train."""

    async def do(self, task: task_pb2.Task) -> None:
        if task.kind == task_pb2.TASK_KIND_FIT:
            self.tasks.put_nowait(task)
        else:
            await super().do(task)


class Insistent(ScriptedAgent):
    deed: Deed

    async def do(self, task: task_pb2.Task) -> None:
        if task.kind == task_pb2.TASK_KIND_FIT:
            await insist(self, task, self.deed)
        else:
            await super().do(task)


async def test_all_bad_updates_of_the_table_in_one_round(place: Place) -> None:
    names = ["good", "better", *(f"bad-{number}" for number, _ in enumerate(DEEDS))]
    run = await place.prepare(
        names, cohort=CohortConfig(min_clients=len(names)), faults=FaultsConfig(quorum=2, deadline_seconds=60)
    )
    await place.connect("good", step=2.0)
    await place.connect("better", step=2.0)
    for number, (does, _) in enumerate(DEEDS.values()):
        agent = await place.connect(f"bad-{number}", Insistent)
        assert isinstance(agent, Insistent)
        agent.deed = does
    place.engine.drive(run.pk)
    await place.until_ended(run)
    assert (run.status, run.rounds_done) == ("completed", 1), run.reason
    parts = {p.client.name: p async for p in Participation.objects.select_related("client")}
    assert {parts[name].outcome for name in ("good", "better")} == {"completed"}
    for number, (deed, (_, reason)) in enumerate(DEEDS.items()):
        part = parts[f"bad-{number}"]
        assert part.outcome in ("rejected", "failed"), deed
        assert re.search(reason, part.reason), (deed, part.reason)


# --- floods ----------------------------------------------------------------------------------------------------------

Flood = Callable[[Place, str], Awaitable[None]]


async def progress(place: Place, name: str) -> None:
    """With a task in hand: as many words, figures and changes of phase as go through."""
    agent, task = place.at_work[name]
    metrics = {f"m{i}": tensor_pb2.Scalar(double=i) for i in range(limits.MAX_SCALARS)}
    try:
        for i in count():
            phase = (task_pb2.PHASE_DOWNLOADING, task_pb2.PHASE_TRAINING, task_pb2.PHASE_UPLOADING)[i % 3]
            words = "x" * 100_000
            message = task_pb2.Progress(task_id=task.task_id, phase=phase, fraction=1.0, metrics=metrics, message=words)
            agent.send(progress=message)
            await asyncio.sleep(0.001)
    finally:
        agent.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="tired")


async def _unread(place: Place, name: str, *messages: fleet_pb2.AgentMessage) -> None:
    """Of what the server answers nothing is read."""
    async with place.channel(name) as channel:
        stream = fleet_pb2_grpc.FleetStub(channel).Connect()
        await stream.write(fleet_pb2.AgentMessage(hello=fleet_pb2.Hello(protocol_major=limits.PROTOCOL_MAJOR)))
        while True:
            for message in messages:
                await stream.write(message)


async def heartbeats(place: Place, name: str) -> None:
    await _unread(place, name, fleet_pb2.AgentMessage(heartbeat=fleet_pb2.Heartbeat(memory_bytes=1)))


async def flaps(place: Place, name: str) -> None:
    words = [fleet_pb2.Availability(unavailable=text) for text in ("", "x" * 100_000)]
    await _unread(place, name, *(fleet_pb2.AgentMessage(availability=word) for word in words))


async def results_of_no_task(place: Place, name: str) -> None:
    result = task_pb2.TaskResult(task_id="x" * 100_000, reason="x" * 1_000_000)
    await _unread(place, name, fleet_pb2.AgentMessage(result=result))


async def hellos(place: Place, name: str) -> None:
    """A connection for each."""
    hello = fleet_pb2.Hello(protocol_major=limits.PROTOCOL_MAJOR, tasks_in_hand=["x" * 1_000_000])
    while True:
        async with place.channel(name) as channel:
            stream = fleet_pb2_grpc.FleetStub(channel).Connect(iter([fleet_pb2.AgentMessage(hello=hello)]))
            with contextlib.suppress(aio.AioRpcError):
                await stream.read()


async def streams(place: Place, name: str) -> None:
    """Thousands, from one certificate, that are opened and left."""
    channels = [place.channel(name) for _ in range(10)]
    calls: list[Any] = []
    try:
        while True:
            for channel in channels:
                calls += [fleet_pb2_grpc.FleetStub(channel).Connect() for _ in range(10)]
                calls += [transfer_pb2_grpc.TransferStub(channel).Upload() for _ in range(10)]
            await asyncio.sleep(0.05)
    finally:
        for channel in channels:
            await channel.close()


async def headers(place: Place, name: str) -> None:
    """As large as a message may be, for tasks that there aren't."""
    header = transfer_pb2.UploadHeader(task_id="x", sha256="x" * 4_000_000)
    async with place.channel(name) as channel:
        stub = transfer_pb2_grpc.TransferStub(channel)
        while True:
            with contextlib.suppress(aio.AioRpcError):
                await stub.Upload(iter([transfer_pb2.UploadMessage(header=header)]))


async def crumbs(place: Place, name: str) -> None:
    """An update in chunks of one byte and of none."""
    agent, task = place.at_work[name]
    call = agent.transfer.Upload()
    try:
        await call.write(transfer_pb2.UploadMessage(header=agent.header(task, update(), bytes(128))))
        while True:
            await call.write(transfer_pb2.UploadMessage(chunk=transfer_pb2.Chunk()))
    finally:
        call.cancel()
        agent.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="tired")


async def half_open(place: Place, name: str) -> None:
    """Connections on which nothing comes, or no TLS."""
    writers = []
    try:
        for i in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", place.engine.port)
            writers.append(writer)
            if i % 3 == 0:
                writer.write(bytes(range(1, 256)) * 10)
        await asyncio.Event().wait()
    finally:
        for writer in writers:
            writer.transport.abort()


FLOODS: list[Flood] = [progress, crumbs, heartbeats, flaps, results_of_no_task, hellos, streams, headers, half_open]
IN_THE_ROUND = {progress.__name__, crumbs.__name__}


async def _for_a_while(flood: Flood, place: Place) -> None:
    with contextlib.suppress(TimeoutError, aio.AioRpcError):
        async with asyncio.timeout(FLOOD_SECONDS):
            await flood(place, flood.__name__)


async def test_floods_hold_nobody_up_and_take_no_memory(place: Place) -> None:
    names = ["good", "better", *(flood.__name__ for flood in FLOODS)]
    run = await place.prepare(
        names,
        cohort=CohortConfig(min_clients=2 + len(IN_THE_ROUND)),
        faults=FaultsConfig(quorum=2, deadline_seconds=60),
    )
    good = [await place.connect("good"), await place.connect("better")]
    asked = {name: await place.connect(name, Asked) for name in IN_THE_ROUND}
    place.engine.drive(run.pk)
    place.at_work = {name: (agent, await asyncio.wait_for(agent.tasks.get(), 60)) for name, agent in asked.items()}
    before, files = place.engine.resident, place.engine.open_files
    most = before
    floods = [asyncio.create_task(_for_a_while(flood, place)) for flood in FLOODS]
    while not all(flood.done() for flood in floods):
        await asyncio.wait(floods, timeout=0.2)
        most = max(most, place.engine.resident)
    await asyncio.gather(*floods)
    await place.until_ended(run)
    assert (run.status, run.rounds_done) == ("completed", 1), run.reason
    assert most - before < MOST_GROWTH, f"{(most - before) >> 20} MiB"
    assert not any(agent.goodbye.done() for agent in good)
    outcomes = {p.client.name: p.outcome async for p in Participation.objects.select_related("client")}
    assert outcomes == {"good": "completed", "better": "completed", **dict.fromkeys(IN_THE_ROUND, "failed")}
    assert await Event.objects.acount() < 200
    assert len(place.engine.log) < 200_000
    connected = Client.objects.filter(connected=True, name__in=["good", "better"])
    assert await connected.acount() == 2
    deadline = time.monotonic() + 40
    while place.engine.open_files > files + 20:
        assert time.monotonic() < deadline, f"{place.engine.open_files} files are open; before, {files}"
        await asyncio.sleep(0.2)
