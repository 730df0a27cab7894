"""Updates that travel as differences, in fewer bits: through the engine, by scripted agents and by real ones."""

from __future__ import annotations

import asyncio
import itertools
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import aio

from aggregator.core.accumulator import WeightedMean
from aggregator.core.config import UpdateConfig
from aggregator.core.strategy import sizes
from aggregator.ports import RunOutcome, RunSpec
from client_agent import agent
from client_agent.apps.digits_numpy import app as digits_app
from client_agent.apps.digits_numpy import evaluate_held_out
from client_agent.hosting import host
from client_agent.identity import Enrolment, Home, Identity
from client_agent.sdk import Context
from protos.encodings import Compression, Encoding, decode, encode, encoded_size, first_non_finite
from protos.fedui.v1 import task_pb2, tensor_pb2
from protos.tensors import Parameters, Signature, TensorSpec
from tests.aggregator.conftest import Federation
from tests.support.rounds import aggregate, rule
from tests.support.scripted_agent import ScriptedAgent

SIGNATURE = Signature((TensorSpec("w", "float32", (300, 7)), TensorSpec("steps", "int64", ())))
COMPRESSIONS: tuple[Compression, ...] = ("none", "float16", "bfloat16", "int8")


def add_run(
    federation: Federation,
    compression: Compression,
    aggregation: str = "mean",
    send: Any = "delta",
    **options: Any,
) -> Any:
    stored = federation.add_run(**options)
    update = UpdateConfig(send=send, compression=compression)
    strategy = stored.spec.strategy.model_copy(update={"update": update, "aggregation": rule(aggregation)})
    return federation.store.add(replace(stored.spec, strategy=strategy, signature=SIGNATURE))


async def drive(federation: Federation, stored: Any) -> Any:
    async with asyncio.timeout(60):
        await federation.engine.run(stored.spec.run_id)
    return stored


# --- what becomes of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compression", "aggregation"), list(itertools.product(COMPRESSIONS, ["mean", "median", "fednova"]))
)
async def test_a_run_comes_near_to_what_it_would_be_uncompressed(
    federation: Federation, compression: Compression, aggregation: str
) -> None:
    for name, step in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        worker = await federation.connect(name, step=step, signature=SIGNATURE)
        worker.metrics = {"local_steps": 2.0}
    run = await drive(federation, add_run(federation, compression, aggregation, clients=3, num_rounds=2))
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    model = federation.models.saved[run.models[2].key]
    np.testing.assert_allclose(model["w"], 4.0, atol=0.03)
    assert model["steps"] == 4
    told = sizes(run.spec.strategy, SIGNATURE)
    assert told.update == encoded_size(SIGNATURE, Encoding(compression, delta=True))
    assert {(p.bytes_down, p.bytes_up) for p in run.rounds[1, 1].participations} == {(told.to_train, told.update)}


@pytest.mark.parametrize("name", ["mean", "median", "krum", "qfedavg", "fednova", "geometric_median", "norm_clipping"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_rule_makes_the_same_of_an_encoded_tensor_and_of_its_values(name: str, compression: Compression) -> None:
    rng, encoding = np.random.default_rng(4), Encoding(compression, delta=True)
    current: Parameters = {"w": rng.standard_normal((90, 41)).astype("f4"), "n": np.array(3)}
    updates = [{**current, "w": current["w"] + rng.standard_normal((90, 41)).astype("f4")} for _ in range(5)]
    signature = Signature.of(current)
    encoded = [
        decode(encode(update, encoding, current, k), signature, encoding, current) for k, update in enumerate(updates)
    ]
    values = [{key: np.asarray(array) for key, array in update.items()} for update in encoded]
    options: Any = {"current": current, "metrics": [{"initial_loss": 1.0, "local_steps": 2.0}] * 5}
    lazily, eagerly = aggregate(rule(name), encoded, **options), aggregate(rule(name), values, **options)
    assert lazily["w"].tobytes() == eagerly["w"].tobytes()
    assert lazily["n"] == eagerly["n"] == 3


async def test_clipping_draws_an_encoded_update_in(federation: Federation) -> None:
    await federation.connect("a", step=5.0, signature=SIGNATURE)
    stored = add_run(federation, "float16", clients=1)
    update = UpdateConfig(send="delta", compression="float16", clip_norm=1.0)
    strategy = stored.spec.strategy.model_copy(update={"update": update})
    run = await drive(federation, federation.store.add(replace(stored.spec, strategy=strategy)))
    assert np.linalg.norm(federation.models.saved[run.models[1].key]["w"]) == pytest.approx(1.0, rel=1e-5)


def test_a_sum_of_encoded_updates_never_holds_one_decoded() -> None:
    size, encoding = 8_000_000, Encoding("int8", delta=True)
    current = {"w": np.linspace(-1, 1, size, dtype="f4")}
    signature = Signature.of(current)
    content = encode({"w": current["w"] + np.float32(0.01)}, encoding, current)
    mean = WeightedMean(signature, compiled=False)
    mean.add(decode(content, signature, encoding, current), 3)
    tracemalloc.start()
    parameters = decode(content, signature, encoding, current)
    assert first_non_finite(parameters) is None
    mean.add(parameters, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < signature.size / 4, f"{peak:,} bytes for a model of {signature.size:,}"


# --- what is refused -------------------------------------------------------------------------------------------------


def int8_with(scale: float = 1.0, code: int = 1) -> bytes:
    content = encode({"w": np.ones((300, 7), "f4"), "steps": np.array(1)}, Encoding("int8"))
    content[:4] = np.float32(scale).tobytes()
    content[20] = code
    return bytes(content)


def raw(compression: str, *, delta: bool = True) -> dict[str, Any]:
    return {"encoding": tensor_pb2.UpdateEncoding(compression=compression, delta=delta)}


GOOD = int8_with()


@pytest.mark.parametrize(
    ("content", "header", "reason"),
    [
        (int8_with(scale=float("nan")), {}, "scale that is negative, NaN or infinite"),
        (int8_with(scale=-1.0), {}, "scale that is negative, NaN or infinite"),
        (int8_with(scale=3e38, code=127), {}, "'w' of the update holds NaN or infinity"),
        (int8_with(code=0x80), {}, "holds −128"),
        (GOOD, {"encoding": None}, "declared to be parameters; the run wants int8 differences"),
        (GOOD, raw("int8", delta=False), "declared to be int8 parameters; the run wants int8 differences"),
        (GOOD, raw("bfloat16"), "declared to be bfloat16 differences from the global model; the run wants int8"),
        (GOOD, raw("gzip"), "'gzip', which is not known here"),
        (GOOD, {"size": SIGNATURE.size}, "the run's model has 2,176 as it is to be sent"),
        (GOOD[:-64], {}, "the run's model has 2,176 as it is to be sent"),
        (GOOD[:-64], {"size": len(GOOD)}, "ended after 2,112 of 2,176 bytes"),
        (GOOD + bytes(64), {"size": len(GOOD)}, "More bytes arrived"),
    ],
)
async def test_an_upload_that_is_not_what_was_asked_for_is_refused(
    federation: Federation, content: bytes, header: dict[str, Any], reason: str
) -> None:
    await federation.connect("good", step=2.0, signature=SIGNATURE)
    bad = await federation.connect("bad", automatic=False, signature=SIGNATURE)
    running = asyncio.create_task(drive(federation, add_run(federation, "int8", clients=2)))
    task = await fit_task(bad)
    update = {"w": np.ones((300, 7), "f4"), "steps": np.array(1)}
    with pytest.raises(aio.AioRpcError) as caught:
        await bad.send_upload(bad.header(task, update, content, **header), content)
    assert re.search(reason, caught.value.details() or ""), caught.value.details()
    bad.report(task, task_pb2.TASK_OUTCOME_FAILED, reason=caught.value.details())
    run = await running
    assert run.outcome is RunOutcome.COMPLETED
    np.testing.assert_allclose(federation.models.saved[run.models[1].key]["w"], 2.0, atol=0.03)


async def test_an_update_that_was_not_to_be_encoded_is_refused(federation: Federation) -> None:
    worker = await federation.connect("a", automatic=False, signature=SIGNATURE)
    running = asyncio.create_task(drive(federation, add_run(federation, "none", send="parameters", clients=1)))
    task = await fit_task(worker)
    assert not task.HasField("encoding")
    with pytest.raises(aio.AioRpcError, match="the run wants parameters"):
        await worker.upload(task, worker.initial(), **raw("int8"))
    await worker.do(task)
    await worker.do(await worker.tasks.get())
    assert (await running).outcome is RunOutcome.COMPLETED


async def test_agents_that_cannot_encode_are_left_out_and_said_to_be(federation: Federation) -> None:
    await federation.connect("old", signature=SIGNATURE, protocol_minor=0)
    await federation.connect("new", signature=SIGNATURE)
    run = await drive(federation, add_run(federation, "int8", clients=1))
    assert [p.client_id for p in run.rounds[1, 1].participations] == ["new"]
    run = await drive(federation, add_run(federation, "int8", clients=2, run_id=2, wait=0.1))
    assert run.outcome is RunOutcome.FAILED
    assert "Only 1 of 2 clients" in run.reason
    assert "1 more must update fedagent for this strategy" in run.reason
    run = await drive(federation, add_run(federation, "none", send="parameters", clients=2, run_id=3))
    assert run.outcome is RunOutcome.COMPLETED


async def fit_task(worker: ScriptedAgent) -> task_pb2.Task:
    task = await asyncio.wait_for(worker.tasks.get(), 10)
    while task.kind == task_pb2.TASK_KIND_INITIALISE:
        await worker.do(task)
        task = await asyncio.wait_for(worker.tasks.get(), 10)
    return task


# --- real agents -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def digits_agents(federation: Federation, folder: Path, count: int) -> AsyncIterator[Signature]:
    """Real agents with the app `digits-mlp`, each with its share of the data."""
    running, expiry = [], (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    address = f"127.0.0.1:{federation.engine.port}"
    for number in range(count):
        name = f"site-{number}"
        federation.registry.add(name)
        options = {"partition": str(number), "partitions": str(count), "alpha": "10"}
        hosted = host(digits_app, Context(name, options))
        enrolment = Enrolment(name, name, "tests", "http://127.0.0.1:1", address, expiry)
        identity = Identity(enrolment, *federation.authority.key_and_certificate(name), federation.authority.pem)
        home = Home(folder / name)
        home.save(identity)
        apps = {(digits_app.name, digits_app.version): hosted}
        running.append(asyncio.create_task(agent.serve(home, identity, apps, max_delay=0.05)))
    yield hosted.signature
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_digits_learns_as_well_from_int8_differences(federation: Federation, tmp_path: Path) -> None:
    accuracy, sizes, bits = {}, {}, []
    async with digits_agents(federation, tmp_path, 3) as signature:
        for run_id, compression in enumerate(("none", "int8", "int8"), start=1):
            stored = federation.add_run(run_id=run_id, clients=3, num_rounds=5, evaluate=False, deadline=60)
            update = UpdateConfig(send="delta", compression=compression)
            spec = RunSpec(
                run_id, "digits", "tests", digits_app.name, digits_app.version, signature,
                stored.spec.strategy.model_copy(update={"update": update}), 7, 5,
            )  # fmt: skip
            run = await drive(federation, federation.store.add(spec))
            assert run.outcome is RunOutcome.COMPLETED, run.reason
            model = federation.models.saved[run.models[5].key]
            accuracy[compression] = evaluate_held_out(model)[2]["accuracy"]
            sizes[compression] = max(p.bytes_up for p in run.rounds[5, 1].participations)
            bits.append(b"".join(array.tobytes() for array in model.values()))
    assert accuracy["none"] > 0.85
    assert accuracy["int8"] > accuracy["none"] - 0.02
    assert sizes["int8"] < 0.3 * sizes["none"]
    assert bits[1] == bits[2], "the same run twice rounds the same"
