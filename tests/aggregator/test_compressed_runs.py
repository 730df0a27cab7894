"""Runs whose updates are the largest differences alone, or packed: through the engine, by scripted agents and by real ones."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from grpc import aio

from aggregator.core.accumulator import WeightedMean
from aggregator.core.config import StrategyConfig
from aggregator.core.strategy import sizes
from aggregator.memory import StoredRun
from aggregator.ports import RunOutcome, RunSpec
from client_agent import agent
from client_agent.execution import RESIDUAL
from client_agent.hosting import host
from client_agent.identity import Enrolment, Home, Identity
from client_agent.method_state import MethodStates
from client_agent.sdk import App, Arrays, Config, Context, FitResult, NumPyClient
from protos import limits
from protos.encodings import Encoding, decode, encode, encoded_size, first_non_finite
from protos.fedui.v1 import task_pb2, tensor_pb2, transfer_pb2
from protos.packing import pack
from protos.tensors import Parameters, Signature, TensorSpec
from tests.aggregator.conftest import Federation
from tests.support.rounds import aggregate, rule
from tests.support.scripted_agent import ScriptedAgent

SIZE, KEEP = 4_000, 0.01
SIGNATURE = Signature((TensorSpec("w", "float32", (SIZE,)), TensorSpec("steps", "int64", ())))
TOP_K = {"send": "delta", "compression": "top_k", "keep": KEEP}

Launch = Callable[..., Awaitable[Path]]


class Stepping(NumPyClient):
    """Adds a step to each coordinate, always the same one; the values are such that no sum of theirs is rounded."""

    steps = np.random.default_rng(5).integers(-1_000, 1_000, SIZE).astype(np.float32) / 1_024

    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(SIZE, np.float32), np.array(0)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return [parameters[0] + self.steps, parameters[1] + 1], 1, {}


APP = App("toy", "1", "numpy", lambda context: Stepping(), ("w", "steps"))


@pytest.fixture
async def launch(federation: Federation, tmp_path: Path) -> AsyncIterator[Launch]:
    """Connects a real agent, and returns its folder."""
    running: list[asyncio.Task[None]] = []

    async def start(name: str = "real") -> Path:
        federation.registry.add(name)
        expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        enrolment = Enrolment(name, name, "tests", "http://x", f"127.0.0.1:{federation.engine.port}", expiry)
        identity = Identity(enrolment, *federation.authority.key_and_certificate(name), federation.authority.pem)
        home = Home(tmp_path / name)
        home.prepare()
        serving = agent.serve(home, identity, {("toy", "1"): host(APP, Context(name, {}))}, max_delay=0.05)
        running.append(asyncio.create_task(serving))
        await federation.until(lambda: name in federation.registry.online)
        return tmp_path / name

    yield start
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def add_run(
    federation: Federation, run_id: int, update: dict[str, Any], rounds: int = 3, clients: int = 1, **faults: Any
) -> StoredRun:
    strategy = StrategyConfig.model_validate(
        {
            "update": update,
            "cohort": {"min_clients": clients},
            "faults": {"quorum": clients, "wait_for_clients_seconds": 5, **faults},
            "evaluation": {"federated": False},
        }
    )
    return federation.store.add(RunSpec(run_id, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, rounds))


async def drive(federation: Federation, run: StoredRun) -> StoredRun:
    async with asyncio.timeout(60):
        await federation.engine.run(run.spec.run_id)
    return run


def model(federation: Federation, run: StoredRun, number: int) -> Parameters:
    return federation.models.saved[run.models[number].key]


def residual(folder: Path, run: StoredRun, number: int) -> Any:
    """What the agent has on its disk."""
    return MethodStates(folder / "methods" / folder.name).load(str(run.spec.run_id), number)[RESIDUAL + "w"]


# --- top_k -----------------------------------------------------------------------------------------------------------


async def test_what_is_in_the_model_and_what_is_still_at_the_client_are_all_its_steps(
    federation: Federation, launch: Launch
) -> None:
    folder = await launch()
    run = await drive(federation, add_run(federation, 1, TOP_K, rounds=6))
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    learnt = model(federation, run, 6)
    assert learnt["steps"] == 6
    assert np.count_nonzero(learnt["w"]) <= 6 * SIZE * KEEP
    np.testing.assert_array_equal(learnt["w"] + residual(folder, run, 6), 6 * Stepping.steps)
    told = sizes(run.spec.strategy, SIGNATURE)
    assert told.update == encoded_size(SIGNATURE, Encoding("top_k", delta=True, keep=KEEP)) < SIGNATURE.size / 40
    assert {(p.bytes_down, p.bytes_up) for p in run.rounds[6, 1].participations} == {(told.to_train, told.update)}


@pytest.mark.parametrize("update", [TOP_K, TOP_K | {"packing": "zstd"}])
async def test_a_run_that_changes_engines_has_the_same_bits(
    federation: Federation, launch: Launch, update: dict[str, Any]
) -> None:
    await launch()
    undisturbed = await drive(federation, add_run(federation, 1, update, rounds=5))
    run = add_run(federation, 2, update, rounds=5)
    driving = asyncio.create_task(federation.engine.run(2))
    await federation.until(lambda: 2 in run.models)
    port = federation.engine.port
    await federation.engine.stop()
    await driving
    await federation.start(port)
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert model(federation, run, 5)["w"].tobytes() == model(federation, undisturbed, 5)["w"].tobytes()


@pytest.mark.parametrize("name", ["mean", "median", "multikrum", "fednova", "geometric_median", "norm_clipping"])
def test_a_rule_makes_the_same_of_the_largest_differences_and_of_their_values(name: str) -> None:
    rng, encoding = np.random.default_rng(4), Encoding("top_k", delta=True, keep=0.1)
    current: Parameters = {"w": rng.standard_normal((90, 41)).astype("f4"), "n": np.array(3)}
    updates = [{**current, "w": current["w"] + rng.standard_normal((90, 41)).astype("f4")} for _ in range(5)]
    encoded = [decode(encode(u, encoding, current), Signature.of(current), encoding, current) for u in updates]
    values = [{key: np.asarray(array) for key, array in update.items()} for update in encoded]
    options: Any = {"current": current, "metrics": [{"local_steps": 2.0}] * 5}
    lazily, eagerly = aggregate(rule(name), encoded, **options), aggregate(rule(name), values, **options)
    assert lazily["w"].tobytes() == eagerly["w"].tobytes()
    if name == "mean":
        assert lazily["w"].tobytes() == aggregate(rule(name), encoded[::-1], **options)["w"].tobytes()


def test_a_sum_of_the_largest_differences_never_holds_an_update_decoded() -> None:
    size, encoding = 8_000_000, Encoding("top_k", delta=True, keep=KEEP)
    current = {"w": np.linspace(-1, 1, size, dtype="f4")}
    signature = Signature.of(current)
    content = encode({"w": current["w"] * np.float32(1.01)}, encoding, current)
    mean = WeightedMean(signature, compiled=False)
    mean.add(decode(content, signature, encoding, current), 3)
    tracemalloc.start()
    parameters = decode(content, signature, encoding, current)
    assert first_non_finite(parameters) is None
    mean.add(parameters, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < signature.size / 4, f"{peak:,} bytes for a model of {signature.size:,}"


async def test_agents_that_do_not_know_top_k_are_left_out_and_said_to_be(federation: Federation) -> None:
    await federation.connect("old", signature=SIGNATURE, protocol_minor=limits.TOP_K_MINOR - 1)
    run = await drive(federation, add_run(federation, 1, TOP_K, wait_for_clients_seconds=0.1))
    assert run.outcome is RunOutcome.FAILED
    assert "1 more must update fedagent for this strategy" in run.reason


def largest(places: list[int], number: float = 1.0) -> bytes:
    """An update whose 40 values are at `places`."""
    values = np.full(len(places), number, "<f4")
    content = np.array(places, "<u4").tobytes() + values.tobytes() + np.array(1).tobytes()
    return content.ljust(encoded_size(SIGNATURE, Encoding("top_k", delta=True, keep=KEEP)), b"\0")


def declared(keep: float) -> dict[str, Any]:
    return {"encoding": tensor_pb2.UpdateEncoding(compression="top_k", delta=True, keep=keep)}


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (largest([*range(39), SIZE]), {}, "a value at 4,000 of 4,000"),
        (largest([0, 0, *range(2, 40)]), {}, "don't ascend"),
        (largest([*range(40)][::-1]), {}, "don't ascend"),
        (largest([*range(40)], float("nan")), {}, "'w' of the update holds NaN or infinity"),
        (largest([*range(40)])[:-64], {}, "as it is to be sent"),
        (largest([*range(40)]), declared(0.02), "the run wants the largest 0.01 of the differences"),
        (largest([*range(40)]), declared(float("nan")), "more than 0 and at most 50%"),
    ],
)
async def test_what_no_encoder_writes_fails_one_participation(
    federation: Federation, content: bytes, changes: dict[str, Any], reason: str
) -> None:
    details, run = await refused_upload(federation, TOP_K, content, changes)
    assert reason in details, details
    assert run.outcome is RunOutcome.COMPLETED, run.reason


# --- packing ---------------------------------------------------------------------------------------------------------

PACKED = {"packing": "zstd"}


@pytest.mark.parametrize("update", [PACKED, {"send": "delta", "compression": "bfloat16"} | PACKED, TOP_K | PACKED])
async def test_a_packed_run_is_bit_for_bit_the_other_one_and_smaller(
    federation: Federation, launch: Launch, update: dict[str, Any]
) -> None:
    await launch()
    plain = await drive(federation, add_run(federation, 1, update | {"packing": "none"}))
    packed = await drive(federation, add_run(federation, 2, update))
    assert packed.outcome is RunOutcome.COMPLETED, packed.reason
    assert model(federation, packed, 3)["w"].tobytes() == model(federation, plain, 3)["w"].tobytes()
    (before,), (after,) = plain.rounds[2, 1].participations, packed.rounds[2, 1].participations
    assert after.bytes_down < before.bytes_down
    assert after.bytes_up < before.bytes_up


async def test_an_agent_that_does_not_know_packing_goes_on_beside_one_that_does(
    federation: Federation, launch: Launch
) -> None:
    """The scripted agent reads no field of the newer protocol."""
    await launch()
    await federation.connect("old", signature=SIGNATURE, protocol_minor=limits.METHODS_MINOR)
    run = await drive(federation, add_run(federation, 1, {"send": "delta"} | PACKED, clients=2))
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    sent = {p.client_id: (p.outcome, p.bytes_down, p.bytes_up) for p in run.rounds[2, 1].participations}
    assert sent["old"] == ("completed", SIGNATURE.size, SIGNATURE.size)
    assert sent["real"][0] == "completed"
    assert max(sent["real"][1:]) < SIGNATURE.size


async def test_a_model_is_packed_once_a_round_and_gone_on_with_at_an_offset(federation: Federation) -> None:
    one = await federation.connect("one", automatic=False, signature=SIGNATURE)
    two = await federation.connect("two", automatic=False, signature=SIGNATURE)
    running = asyncio.create_task(drive(federation, add_run(federation, 1, PACKED, rounds=1, clients=2)))
    tasks = await asyncio.gather(fit_task(one), fit_task(two))
    assert tasks[0].model.packed == tasks[1].model.packed
    packed = tasks[0].model.packed
    whole = await downloaded(two, tasks[1], packing="zstd")
    assert (len(whole), hashlib.sha256(whole).hexdigest()) == (packed.size, packed.sha256)
    assert await downloaded(one, tasks[0], packing="zstd", offset=10) == whole[10:]
    with pytest.raises(aio.AioRpcError, match="isn't sent packed like that"):
        await downloaded(one, tasks[0], packing="brotli")
    with pytest.raises(aio.AioRpcError, match="is sent as"):
        await downloaded(one, tasks[0], packing="zstd", offset=packed.size + 1)
    for worker, task in zip((one, two), tasks, strict=True):
        await worker.do(task)
    assert (await running).outcome is RunOutcome.COMPLETED


async def downloaded(worker: ScriptedAgent, task: task_pb2.Task, **fields: Any) -> bytes:
    request = transfer_pb2.DownloadRequest(task_id=task.task_id, **fields)
    return b"".join([chunk.data async for chunk in worker.transfer.Download(request)])


def packed_update() -> bytes:
    return bytes(pack(encode({"w": np.ones(SIZE, "f4"), "steps": np.array(1)}, Encoding())) or b"")


AS_PACKED = {"encoding": tensor_pb2.UpdateEncoding(packing="zstd")}
BOMB = zstandard.ZstdCompressor().compress(bytes(2**26))


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (BOMB, AS_PACKED, "more than the 16,064"),
        (packed_update()[:-4], AS_PACKED, "as they should"),
        (zstandard.ZstdCompressor().compress(bytes(99)), AS_PACKED, "hold 99, not 16,064"),
        (b"nothing of the kind", AS_PACKED, "can't be unpacked"),
        (bytes(SIGNATURE.size), AS_PACKED, "is to be smaller"),
        (b"", AS_PACKED, "is to be smaller"),
        (packed_update(), {"encoding": tensor_pb2.UpdateEncoding(packing="gzip")}, "which the run doesn't ask for"),
        (packed_update(), {}, "as it is to be sent"),
    ],
)
async def test_what_is_no_packed_update_fails_one_participation(
    federation: Federation, content: bytes, changes: dict[str, Any], reason: str
) -> None:
    details, run = await refused_upload(federation, PACKED, content, changes)
    assert reason in details, details
    assert run.outcome is RunOutcome.COMPLETED, run.reason


async def test_packed_bytes_that_nobody_asked_for_are_refused(federation: Federation) -> None:
    details, _ = await refused_upload(federation, {}, packed_update(), AS_PACKED)
    assert "which the run doesn't ask for" in details


async def refused_upload(
    federation: Federation, update: dict[str, Any], content: bytes, changes: dict[str, Any]
) -> tuple[str, StoredRun]:
    """What the server says to it, and the run, in which somebody else takes part too."""
    await federation.connect("good", signature=SIGNATURE)
    bad = await federation.connect("bad", automatic=False, signature=SIGNATURE)
    run = add_run(federation, 1, update, rounds=1, clients=2, quorum=1)
    running = asyncio.create_task(drive(federation, run))
    task = await fit_task(bad)
    header = bad.header(task, bad.initial(), content, **changes)
    with pytest.raises(aio.AioRpcError) as caught:
        await bad.send_upload(header, content)
    bad.report(task, task_pb2.TASK_OUTCOME_FAILED, reason=caught.value.details())
    return caught.value.details() or "", await running


async def fit_task(worker: ScriptedAgent) -> task_pb2.Task:
    while True:
        task = await asyncio.wait_for(worker.tasks.get(), 10)
        if task.kind == task_pb2.TASK_KIND_FIT:
            return task
        await worker.do(task)
