"""Uploads and downloads among many, over bad networks, and from those who only pretend to send."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import grpc
import pytest
from grpc import aio

from aggregator import failpoints, log_context
from aggregator.core.config import CohortConfig, EvaluationConfig, FaultsConfig, StrategyConfig
from aggregator.hub import Assignment, Hub
from aggregator.memory import MemoryClientRegistry
from aggregator.ports import RunOutcome, RunSpec
from aggregator.transport import pace
from aggregator.transport.calls import OpenCalls
from aggregator.transport.pace import TransferLimits
from aggregator.transport.server import build_server
from aggregator.transport.uploads import BATCH_BYTES, SUFFIX, PartialUpload, SpoolFull, Uploads, upload_folder
from protos import limits
from protos.fedui.v1 import task_pb2, transfer_pb2
from protos.packing import pack, unpack
from protos.tensors import Parameters, Signature, TensorSpec, encode
from tests.aggregator.conftest import Federation
from tests.support.authority import TestAuthority
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent

Upload = Any


@asynccontextmanager
async def limited_federation(uploads: Path | None = None, **settings: Any) -> AsyncIterator[Federation]:
    federation = Federation()
    await federation.start(uploads=uploads, transfer_limits=TransferLimits(**settings))
    try:
        yield federation
    finally:
        await federation.close()


async def next_task(agent: ScriptedAgent, kind: task_pb2.TaskKind.ValueType) -> task_pb2.Task:
    """The agent's next task of the kind; on the way to it, it does what it is asked."""
    while True:
        task = await asyncio.wait_for(agent.tasks.get(), 10)
        if task.kind == kind:
            return task
        await agent.do(task)


async def fit_tasks(federation: Federation, *names: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A run of these clients, and each one's agent, task, update and the update's bytes."""
    agents = {name: await federation.connect(name, automatic=False) for name in names}
    running = asyncio.create_task(federation.run(clients=len(names), **options))
    first: dict[asyncio.Task[task_pb2.Task], str] = {}
    for name, agent in agents.items():
        first[asyncio.create_task(next_task(agent, task_pb2.TASK_KIND_FIT))] = name
    await asyncio.wait_for(asyncio.gather(*first), 10)
    work = {}
    for waiting, name in first.items():
        update = agents[name].trained(agents[name].initial())
        work[name] = agents[name], waiting.result(), update, bytes(encode(update))
    return running, work


async def large_task(
    federation: Federation, *, megabytes: int
) -> tuple[ScriptedAgent, task_pb2.Task, asyncio.Task[bool]]:
    """The task of one client whose model has so many MiB, and the run."""
    signature = Signature((TensorSpec("w", "float32", (megabytes, 2**18)), TensorSpec("steps", "int64", ())))
    agent = await federation.connect("a", automatic=False, signature=signature)
    strategy = StrategyConfig(
        cohort=CohortConfig(min_clients=1), faults=FaultsConfig(quorum=1), evaluation=EvaluationConfig(federated=False)
    )
    federation.store.add(RunSpec(1, "test", "tests", "toy", "1", signature, strategy, 7, 1))
    running = asyncio.create_task(federation.engine.run(1))
    return agent, await next_task(agent, task_pb2.TASK_KIND_FIT), running


async def begin_upload(agent: ScriptedAgent, task: task_pb2.Task, update: Parameters, data: bytes) -> Upload:
    call = agent.transfer.Upload()
    await call.write(transfer_pb2.UploadMessage(header=agent.header(task, update, data)))
    return call


async def send(call: Upload, data: bytes) -> None:
    await call.write(transfer_pb2.UploadMessage(chunk=transfer_pb2.Chunk(data=data)))


async def finish(call: Upload, data: bytes) -> None:
    await send(call, data)
    await call.done_writing()
    await asyncio.wait_for(call, 10)


async def status(agent: ScriptedAgent, task: task_pb2.Task, sha256: str = "") -> transfer_pb2.UploadStatus:
    return await agent.transfer.GetUpload(transfer_pb2.GetUploadRequest(task_id=task.task_id, sha256=sha256))


async def until_received(agent: ScriptedAgent, task: task_pb2.Task, nbytes: int) -> None:
    async with asyncio.timeout(10):
        while (await status(agent, task)).received < nbytes:
            await asyncio.sleep(0.005)


async def _until_refused(call: Any) -> AsyncIterator[transfer_pb2.Chunk]:
    with pytest.raises(aio.AioRpcError, match="Nothing has moved"):
        async for chunk in call:
            yield chunk


async def ended(call: Upload) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    return caught.value


# --- their turn ------------------------------------------------------------------------------------------------------


async def test_uploads_wait_for_their_turn_first_come_first_served() -> None:
    async with limited_federation(uploads_at_once=1) as federation:
        running, work = await fit_tasks(federation, "a", "b", "c", evaluate=False)
        calls: dict[str, Upload] = {}
        turns: list[str] = []

        async def note_turn(name: str) -> None:
            await calls[name].initial_metadata()
            turns.append(name)

        notes = []
        for name, (agent, task, update, data) in work.items():
            calls[name] = await begin_upload(agent, task, update, data)
            notes.append(asyncio.create_task(note_turn(name)))
            if name == "a":
                await asyncio.wait_for(notes[0], 10)
            assert (await status(agent, task)).announces_turn
        assert turns == ["a"]
        for name in work:
            await finish(calls[name], work[name][3])
        await asyncio.gather(*notes)
        assert turns == ["a", "b", "c"]
        assert (await running).outcome is RunOutcome.COMPLETED


async def test_who_waits_while_the_round_closes_is_told() -> None:
    async with limited_federation(uploads_at_once=1, idle_seconds=3.0) as federation:
        running, work = await fit_tasks(federation, "a", "b", quorum=2, deadline=1.0, wait=0.5)
        holds = await begin_upload(*work["a"])
        await asyncio.wait_for(holds.initial_metadata(), 10)
        waits = await begin_upload(*work["b"])
        await asyncio.wait_for(work["b"][0].cancelled.get(), 10)  # the deadline, which runs on while it waits
        await send(holds, work["a"][3])
        for call in (holds, waits):
            assert "Too late by" in ((await ended(call)).details() or "")
        running.cancel()


async def test_a_new_stream_takes_the_place_of_one_that_died_without_a_word() -> None:
    async with limited_federation(uploads_at_once=1) as federation:
        running, work = await fit_tasks(federation, "a", evaluate=False)
        agent, task, update, data = work["a"]
        dead = await begin_upload(agent, task, update, data)
        await send(dead, data[:64])
        await until_received(agent, task, 64)
        rest = agent.header(task, update, data, offset=64)
        assert not (await asyncio.wait_for(agent.send_upload(rest, data[64:]), 10)).duplicate
        assert (await ended(dead)).code() is grpc.StatusCode.ABORTED
        assert (await running).outcome is RunOutcome.COMPLETED


async def test_streams_that_hang_up_while_they_wait_let_nobody_in_beside_the_one_that_is_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failpoints, "_FOLDER", str(tmp_path))
    async with limited_federation() as federation:
        running, work = await fit_tasks(federation, "a", evaluate=False)
        agent, task, update, data = work["a"]
        (tmp_path / "collect.1").touch()
        first = await begin_upload(agent, task, update, data)
        await send(first, data)
        await first.done_writing()
        await federation.until((tmp_path / "collect.1.reached").exists)
        first.cancel()
        second = await begin_upload(agent, task, update, data)
        await wait_for_calls(federation, 3)
        second.cancel()
        await wait_for_calls(federation, 2)
        third = await begin_upload(agent, task, update, data)
        await third.done_writing()
        await wait_for_calls(federation, 3)
        (tmp_path / "collect.1.reached").unlink()
        assert (await asyncio.wait_for(third, 10)).duplicate
        assert (await running).outcome is RunOutcome.COMPLETED


async def test_who_takes_more_for_kept_than_there_is_may_send_it_again() -> None:
    async with limited_federation() as federation:
        running, work = await fit_tasks(federation, "a", evaluate=False)
        agent, task, update, data = work["a"]
        header = agent.header(task, update, data)
        header.offset = 10
        call = agent.transfer.Upload()
        await call.write(transfer_pb2.UploadMessage(header=header))
        assert (await ended(call)).code() is grpc.StatusCode.ABORTED
        await finish(await begin_upload(agent, task, update, data), data)
        assert (await running).outcome is RunOutcome.COMPLETED


async def wait_for_calls(federation: Federation, number: int) -> None:
    """Until the server has so many open: streams of agents, and transfers."""
    await federation.until(lambda: sum(map(len, federation.engine._calls._calls.values())) == number)


async def test_an_update_that_the_disk_did_not_hold_unpacked_is_taken_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with limited_federation() as federation:
        agent = await federation.connect("a", automatic=False)
        raw = {"cohort": {"min_clients": 1}, "faults": {"quorum": 1}, "evaluation": {"federated": False}}
        strategy = StrategyConfig.model_validate({**raw, "update": {"packing": "zstd"}})
        federation.store.add(RunSpec(1, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, 1))
        running = asyncio.create_task(federation.engine.run(1))
        task = await next_task(agent, task_pb2.TASK_KIND_FIT)
        update = agent.trained(agent.initial())
        packed = pack(encode(update))
        assert packed
        header = agent.header(task, update, bytes(packed))
        header.encoding.packing = "zstd"

        def full(packed: memoryview, size: int) -> Iterator[bytes]:
            raise OSError(errno.ENOSPC, "No space left on device")

        for unpacking, code in ((full, grpc.StatusCode.RESOURCE_EXHAUSTED), (unpack, grpc.StatusCode.OK)):
            monkeypatch.setattr("aggregator.transport.uploads.unpack", unpacking)
            assert (await status(agent, task, header.sha256)).received == 0
            call = agent.transfer.Upload()
            await call.write(transfer_pb2.UploadMessage(header=header))
            await send(call, bytes(packed))
            await call.done_writing()
            assert await asyncio.wait_for(call.code(), 10) is code
        assert await asyncio.wait_for(running, 10)


async def test_an_upload_that_begins_before_what_is_there_leaves_out_what_is_known() -> None:
    async with limited_federation() as federation:
        running, work = await fit_tasks(federation, "a", evaluate=False)
        agent, task, update, data = work["a"]
        cut = await begin_upload(agent, task, update, data)
        await send(cut, data[:100])
        await until_received(agent, task, 100)
        cut.cancel()
        await agent.send_upload(agent.header(task, update, data, offset=64), data[64:])
        run = await running
        assert federation.models.saved[run.models[1].key]["w"].tolist() == update["w"].tolist()


# --- slow ones -------------------------------------------------------------------------------------------------------


async def test_an_upload_that_stands_still_is_ended_and_goes_on_later() -> None:
    async with limited_federation(idle_seconds=0.2) as federation:
        running, work = await fit_tasks(federation, "a", evaluate=False)
        agent, task, update, data = work["a"]
        still = await begin_upload(agent, task, update, data)
        await send(still, data[:64])
        error = await ended(still)
        assert error.code() is grpc.StatusCode.ABORTED
        assert "Nothing has moved for 0.2 s" in (error.details() or "")
        assert (await status(agent, task)).received == 64
        await agent.send_upload(agent.header(task, update, data, offset=64), data[64:])
        assert (await running).outcome is RunOutcome.COMPLETED


@pytest.mark.parametrize("bite", [b"", b"x"])
async def test_an_upload_that_trickles_is_ended(bite: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with limited_federation(idle_seconds=0.3, least_rate=1e9) as federation:
        _, work = await fit_tasks(federation, "a")
        call = await begin_upload(*work["a"])
        ending = asyncio.create_task(ended(call))
        while not ending.done():
            with contextlib.suppress(aio.AioRpcError, asyncio.InvalidStateError):
                await send(call, bite)
            await asyncio.wait({ending}, timeout=0.02)
        # A write that meets the end is told of as gRPC's own failure, and hides the server's word.
        assert (await ending).code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL)
        assert ("less than 1,000,000,000 bytes a second" if bite else "Nothing has moved") in caplog.text


async def test_log_lines_of_a_transfer_say_whose_it_is() -> None:
    lines: list[tuple[str, dict[str, object]]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.getMessage(), dict(log_context.about())))

    handler = Lines()
    logging.getLogger("aggregator.transport").addHandler(handler)
    try:
        async with limited_federation(idle_seconds=0.2) as federation:
            _, work = await fit_tasks(federation, "a")
            _, task, *_ = work["a"]
            await ended(await begin_upload(*work["a"]))
    finally:
        logging.getLogger("aggregator.transport").removeHandler(handler)
    [about] = [about for line, about in lines if "Nothing has moved" in line]
    assert about["client_id"] == "a"
    assert about["rpc"] == "Upload"
    assert (about["run_id"], about["round"]) == (task.run_id, task.round)


@asynccontextmanager
async def serving_a_model(folder: Path, model: bytes, transfer_limits: TransferLimits) -> AsyncIterator[ScriptedAgent]:
    """The agent's task is `t`."""
    authority, registry = TestAuthority(), MemoryClientRegistry()
    registry.add("a")
    hub = Hub(registry, heartbeat_seconds=60, lost_after_seconds=60)
    server, port = build_server(hub, registry, OpenCalls(), authority.server, "127.0.0.1:0", folder, transfer_limits)
    await server.start()
    task = task_pb2.Task(task_id="t", run_id="1", model=task_pb2.ModelRef(size=len(model)))
    hub.assign(Assignment("a", task, AsyncMock(), model))
    async with ScriptedAgent(authority, port, "a", automatic=False) as agent, asyncio.timeout(20):
        yield agent
    await server.stop(None)


async def test_a_download_that_nobody_reads_is_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = bytes(64 * 2**20)
    async with serving_a_model(tmp_path, model, TransferLimits(idle_seconds=0.3)) as agent:
        call = agent.transfer.Download(transfer_pb2.DownloadRequest(task_id="t"))
        while "The download was ended. Nothing has moved for 0.3 s." not in caplog.text:
            await asyncio.sleep(0.01)
        assert sum([len(chunk.data) async for chunk in _until_refused(call)]) < len(model)


@pytest.mark.parametrize(
    ("rate", "quick", "later"),
    [(math.inf, 20.0, limits.QUICK_CHUNK_BYTES), (300_000.0, 0.5, limits.CHUNK_BYTES)],
    ids=["as quick as it can", "held to a rate"],
)
async def test_only_a_download_that_moves_quickly_comes_in_large_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, quick: float, later: int
) -> None:
    monkeypatch.setattr(pace, "QUICK_SECONDS", quick)
    model = bytes(limits.CHUNK_BYTES + 2 * later)
    async with serving_a_model(tmp_path, model, TransferLimits(most_rate=rate)) as agent:
        call = agent.transfer.Download(transfer_pb2.DownloadRequest(task_id="t"))
        assert [len(chunk.data) async for chunk in call] == [limits.CHUNK_BYTES, later, later]


async def test_a_client_is_held_to_its_rate() -> None:
    async with limited_federation(most_rate=6 * 2**20) as federation:
        agent, task, running = await large_task(federation, megabytes=3)
        begun = time.monotonic()
        await agent.do(task)
        assert time.monotonic() - begun > 0.2  # 3 MiB at 6 MiB/s, less the burst
        await running


async def test_a_call_that_ends_while_the_disk_is_at_work_costs_nothing(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(16 * BATCH_BYTES)
    upload = PartialUpload(tmp_path / "update.part", len(content), hashlib.sha256(content).hexdigest())
    for start in range(0, len(content), BATCH_BYTES):
        await upload.take(memoryview(content)[start : start + BATCH_BYTES])
        cut = asyncio.create_task(upload.settle())
        await asyncio.sleep(0)
        cut.cancel()
        await asyncio.wait({cut})
    assert bytes(await upload.whole()) == content


# --- what outlives a server ------------------------------------------------------------------------------------------


async def until_spooled(folder: Path) -> Path:
    """A small update goes to its file when its stream ends: in a thread that outlives the call."""
    async with asyncio.timeout(10):
        while not (parts := [path for path in folder.rglob(f"*{SUFFIX}") if path.stat().st_size]):
            await asyncio.sleep(0.01)
    return parts[0]


async def restart(federation: Federation, folder: Path) -> None:
    await federation.close()
    await until_spooled(folder)
    await federation.start(uploads=folder)


async def cut_upload(federation: Federation) -> tuple[ScriptedAgent, task_pb2.Task, Parameters, bytes]:
    running, work = await fit_tasks(federation, "a", evaluate=False)
    agent, task, update, data = work["a"]
    await send(await begin_upload(agent, task, update, data), data[:64])
    await until_received(agent, task, 64)
    del running
    return agent, task, update, data


async def test_an_upload_goes_on_under_the_new_task_of_a_restarted_server(tmp_path: Path) -> None:
    federation = Federation()
    await federation.start(uploads=tmp_path)
    agent, earlier, update, data = await cut_upload(federation)
    await restart(federation, tmp_path)
    agent = await federation.connect("a", automatic=False)
    running = asyncio.create_task(federation.engine.run(1))
    task = await next_task(agent, task_pb2.TASK_KIND_FIT)
    assert task.task_id != earlier.task_id
    header = agent.header(task, update, data, offset=64)
    assert (await status(agent, task)).received == 0
    assert (await status(agent, task, header.sha256)).received == 64
    await agent.send_upload(header, data[64:])
    await running
    run = federation.store.runs[1]
    assert federation.models.saved[run.models[1].key]["w"].tolist() == update["w"].tolist()
    assert not list(tmp_path.rglob("*.part"))
    await federation.close()


async def test_what_was_damaged_on_the_disk_is_sent_again(tmp_path: Path) -> None:
    federation = Federation()
    await federation.start(uploads=tmp_path)
    *_, update, data = await cut_upload(federation)
    await federation.close()
    part = await until_spooled(tmp_path)
    part.write_bytes(b"\xff" * 64)
    await federation.start(uploads=tmp_path)
    agent = await federation.connect("a", automatic=False)
    running = asyncio.create_task(federation.engine.run(1))
    task = await next_task(agent, task_pb2.TASK_KIND_FIT)
    error = await ended(agent.send_upload(agent.header(task, update, data, offset=64), data[64:]))
    assert error.code() is grpc.StatusCode.ABORTED
    assert (await status(agent, task, agent.header(task, update, data).sha256)).received == 0
    await agent.upload(task, update)
    await running
    await federation.close()


def test_no_two_engines_write_in_one_folder(tmp_path: Path) -> None:
    with upload_folder(tmp_path) as one:
        with upload_folder(tmp_path) as other:
            assert one != other
        with upload_folder(tmp_path) as again:
            assert again == other
    with upload_folder(tmp_path) as first:
        assert first == one


# --- how much is kept ------------------------------------------------------------------------------------------------


def header(task_id: str, size: int, sha256: str = "0" * 64) -> transfer_pb2.UploadHeader:
    return transfer_pb2.UploadHeader(task_id=task_id, size=size, sha256=sha256)


async def fill(uploads: Uploads, owner: str, size: int) -> None:
    """`owner` leaves an upload behind that lacks its last byte."""
    upload = await uploads.begin(owner, header(owner, size), size)
    await upload.take(memoryview(b"x" * (size - 1)))
    await uploads.pause(upload)


async def test_the_oldest_partial_uploads_make_room_and_those_under_way_do_not(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TransferLimits(spool_bytes=250))

    def received(owner: str) -> int:
        return uploads.status(owner, transfer_pb2.GetUploadRequest(task_id=owner, sha256="0" * 64)).received

    await fill(uploads, "old", 100)
    await fill(uploads, "new", 100)
    under_way = await uploads.begin("c", header("c", 100), 100)
    assert [received("old"), received("new")] == [0, 99]
    await uploads.begin("d", header("d", 150), 150)
    assert received("new") == 0
    with pytest.raises(SpoolFull):
        await uploads.begin("e", header("e", 10), 10)
    await uploads.pause(under_way)
    await uploads.begin("e", header("e", 10), 10)


async def test_partial_uploads_go_when_their_round_is_over(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TransferLimits(keep_seconds=-1))
    await fill(uploads, "a", 10)
    assert uploads.sweep({"a"})
    assert list(tmp_path.glob("*.part"))
    assert not uploads.sweep(set())
    assert not list(tmp_path.glob("*.part"))


async def test_what_a_stream_that_was_cut_twice_over_holds_in_memory_goes_too(tmp_path: Path) -> None:
    uploads, size = Uploads(tmp_path, TransferLimits(keep_seconds=-1)), BATCH_BYTES + 1
    upload = await uploads.begin("a", header("a", size), size)
    await upload.take(memoryview(bytes(BATCH_BYTES)))
    pausing = asyncio.create_task(uploads.pause(upload))
    await asyncio.sleep(0)
    pausing.cancel()
    await asyncio.wait({pausing})
    uploads.sweep(set())
    assert uploads.status("a", transfer_pb2.GetUploadRequest(task_id="a", sha256="0" * 64)).received == 0


async def test_what_ended_engines_have_left_goes_though_nobody_uploads(tmp_path: Path) -> None:
    with ExitStack() as before, upload_folder(tmp_path) as in_use:
        own, abandoned = (before.enter_context(upload_folder(tmp_path)) for _ in range(2))
        left = {folder: folder / f"update{SUFFIX}" for folder in (in_use, own, abandoned)}
        for path in left.values():
            path.write_bytes(b"half of it")
        before.close()
        async with limited_federation(tmp_path, keep_seconds=0.1) as federation:
            await federation.until(lambda: not left[own].exists() and not left[abandoned].exists())
        assert left[in_use].exists()


def test_limits_that_contradict_one_another_are_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        TransferLimits(most_rate=100)
    with pytest.raises(ValueError, match="larger than 0"):
        TransferLimits(idle_seconds=0)
