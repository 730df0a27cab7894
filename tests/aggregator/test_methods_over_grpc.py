"""Methods over the network: the engine and whole agents, as in the product but for the database."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.core.config import StrategyConfig
from aggregator.core.strategy import sizes
from aggregator.memory import StoredRun
from aggregator.models import Payload
from aggregator.ports import RunOutcome, RunSpec
from client_agent import agent, methods
from client_agent.apps import digits_numpy
from client_agent.hosting import host
from client_agent.identity import Enrolment, Home, Identity
from client_agent.sdk import App, Arrays, Config, Context, FitResult, NumPyClient
from protos.packing import Packing
from protos.tensors import Parameters, Signature
from tests.aggregator.conftest import Federation

SITES = ("a", "b")
SIGNATURE = Signature.of(dict(zip(digits_numpy.TENSOR_NAMES, digits_numpy.initialise(0), strict=True)))

Launch = Callable[..., Awaitable[None]]


@pytest.fixture
async def launch(federation: Federation, tmp_path: Path) -> AsyncIterator[Launch]:
    """Connects an agent for each site, with the digits app or the one that is given."""
    running: list[asyncio.Task[None]] = []

    async def start(served: Any = methods.ALL, app: App | None = None) -> None:
        names = digits_numpy.TENSOR_NAMES
        app = app or App("digits-mlp", "1.0", "numpy", digits_numpy.client_fn, names, methods=served)
        for number, site in enumerate(SITES):
            federation.registry.add(site)
            key, certificate = federation.authority.key_and_certificate(site)
            expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
            enrolment = Enrolment(site, site, "tests", "http://x", f"127.0.0.1:{federation.engine.port}", expiry)
            home = Home(tmp_path / site)
            home.prepare()
            context = Context(site, {"partition": str(number), "partitions": "5"})
            identity = Identity(enrolment, key, certificate, federation.authority.pem)
            serving = agent.serve(home, identity, {(app.name, app.version): host(app, context)}, max_delay=0.05)
            running.append(asyncio.create_task(serving))
        await federation.until(lambda: set(federation.registry.online) == set(SITES))

    yield start
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def add_run(federation: Federation, run_id: int, num_rounds: int, **parts: Any) -> StoredRun:
    raw = {"local": {"epochs": 1, "learning_rate": 0.1}, **parts}
    strategy = StrategyConfig.model_validate(raw)
    return federation.store.add(
        RunSpec(run_id, "test", "tests", "digits-mlp", "1.0", SIGNATURE, strategy, 3, num_rounds)
    )


async def drive(federation: Federation, run: StoredRun) -> None:
    async with asyncio.timeout(60):
        await federation.engine.run(run.spec.run_id)


def model(federation: Federation, run: StoredRun, number: int) -> Parameters:
    return federation.models.saved[run.models[number].key]


@pytest.mark.parametrize("name", sorted(methods.ALL - {"none"}))
async def test_a_run_trains_by_every_method(federation: Federation, launch: Launch, name: str) -> None:
    await launch()
    run = add_run(federation, 1, 3, method={"name": name} | ({"tensors": ["output*"]} if name == "fedbn" else {}))
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert [p.outcome for p in run.rounds[3, 1].participations] == ["completed"] * 2
    told = sizes(run.spec.strategy, SIGNATURE)
    assert {(p.bytes_down, p.bytes_up) for p in run.rounds[3, 1].participations} == {(told.to_train, told.update)}
    losses = [m.value for m in run.metrics(3) if (m.source, m.name) == ("federated", "loss")]
    assert losses and losses[0] < 2.3  # that of guessing
    first, last = model(federation, run, 0), model(federation, run, 3)
    stays = name in ("fedbn", "fedper", "fedrep")
    assert np.array_equal(first["output.weight"], last["output.weight"]) == stays
    assert not np.array_equal(first["hidden.weight"], last["hidden.weight"])


@pytest.mark.parametrize("name", ["scaffold", "feddyn", "ditto", "fedper"])
async def test_a_run_that_changes_engines_has_the_same_bits(federation: Federation, launch: Launch, name: str) -> None:
    await launch()
    undisturbed = add_run(federation, 1, 4, method={"name": name})
    await drive(federation, undisturbed)
    run = add_run(federation, 2, 4, method={"name": name})
    driving = asyncio.create_task(federation.engine.run(2))
    await federation.until(lambda: 2 in run.models)
    port = federation.engine.port
    await federation.engine.stop()
    await driving
    assert max(run.models) < 4
    await federation.start(port)
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    expected, found = model(federation, undisturbed, 4), model(federation, run, 4)
    assert all(expected[tensor].tobytes() == found[tensor].tobytes() for tensor in expected)


@pytest.mark.parametrize(
    "parts", [{"aggregation": {"name": "fednova"}}, {"method": {"name": "fedprox"}}], ids=["fednova", "fedprox"]
)
async def test_clients_that_run_out_of_time_send_what_they_have(
    federation: Federation, launch: Launch, parts: dict[str, Any]
) -> None:
    def slow(context: Context) -> NumPyClient:
        return digits_numpy.client_fn(Context(context.client_name, {**context.options, "slowdown": "0.9"}))

    names = digits_numpy.TENSOR_NAMES
    await launch(app=App("digits-mlp", "1.0", "numpy", slow, names, methods=methods.ALL))
    local = {"epochs": 100, "learning_rate": 0.1}  # some 90 s of training
    run = add_run(federation, 1, 1, local=local, faults={"deadline_seconds": 6, "quorum": 2}, **parts)
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    for report in run.rounds[1, 1].participations:
        assert report.steps_done is not None and report.steps_planned is not None
        assert 1 <= report.steps_done < report.steps_planned
        assert report.metrics["local_steps"] == report.steps_done
        assert report.outcome == "completed"
    assert not np.array_equal(model(federation, run, 0)["hidden.weight"], model(federation, run, 1)["hidden.weight"])


class TurnByTurn(NumPyClient):
    """Adds 1 to each tensor, when a turn is given; notes the head with which it began."""

    def __init__(self) -> None:
        self.heads: list[float] = []
        self.turns = threading.Semaphore(0)

    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(1, np.float32), np.zeros(1, np.float32)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        self.heads.append(float(parameters[1][0]))
        while not self.turns.acquire(timeout=0.02):
            self.report_progress(0.0)  # here it hears that it is called off
        return [array + 1 for array in parameters], 1, {}


async def test_what_stays_at_a_client_is_that_of_its_last_update_that_counted_however_late(
    federation: Federation, launch: Launch
) -> None:
    """The update of b is two versions old when it counts; what b keeps goes on from it, on another engine too."""
    clients = {site: TurnByTurn() for site in SITES}
    app = App(
        "turns", "1", "numpy", lambda context: clients[context.client_name], ("body", "head"), methods=methods.ALL
    )
    await launch(app=app)
    strategy = StrategyConfig.model_validate(
        {
            "mode": {"name": "buffered", "buffer_size": 1},
            "method": {"name": "fedper", "tensors": ["head"]},
            "cohort": {"min_clients": 2},
            "faults": {"quorum": 1},
        }
    )
    signature = app.signature_of(TurnByTurn())
    run = federation.store.add(RunSpec(1, "test", "tests", "turns", "1", signature, strategy, 7, 5))
    driving = asyncio.create_task(federation.engine.run(1))
    a, b = clients.values()
    await federation.until(lambda: b.heads == [0])
    a.turns.release(2)
    await federation.until(lambda: 2 in run.models)
    b.turns.release()
    await federation.until(lambda: len(b.heads) == 2)
    (late,) = run.rounds[3, 1].participations
    assert (late.client_id, late.staleness) == ("b", 2)
    assert b.heads[1] == 1
    port = federation.engine.port
    await federation.engine.stop()
    await driving
    await federation.start(port)
    driving = asyncio.create_task(federation.engine.run(1))
    await federation.until(lambda: len(b.heads) == 3)
    assert b.heads[2] == 1
    b.turns.release(2)
    async with asyncio.timeout(20):
        await driving
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert b.heads[3] == 2


@pytest.mark.parametrize("name", ["scaffold", "fedper"])
async def test_differences_in_int8_go_with_a_method(federation: Federation, launch: Launch, name: str) -> None:
    await launch()
    run = add_run(federation, 1, 2, method={"name": name}, update={"send": "delta", "compression": "int8"})
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert [p.outcome for p in run.rounds[2, 1].participations] == ["completed"] * 2


async def test_an_app_that_does_not_serve_the_method_says_why(federation: Federation, launch: Launch) -> None:
    await launch(frozenset())
    run = add_run(federation, 1, 1, method={"name": "scaffold"}, faults={"max_abandoned": 1})
    await drive(federation, run)
    assert run.outcome is RunOutcome.FAILED
    # The first refusal, whoever's it is, ends the round; the other client's may come too late to be kept.
    refused = [taken for taken in run.rounds[1, 1].participations if taken.outcome == "refused"]
    assert refused
    assert all("can't train by the method 'scaffold'" in taken.reason for taken in refused)


async def test_an_update_without_the_control_variates_is_refused(federation: Federation) -> None:
    await federation.connect("a")
    scripted = await federation.connect("b", automatic=False)
    strategy = StrategyConfig.model_validate({"method": {"name": "scaffold"}, "faults": {"quorum": 1}})
    run = federation.store.add(RunSpec(1, "test", "tests", "toy", "1", scripted.signature, strategy, 7, 1))
    driving = asyncio.create_task(federation.engine.run(1))
    task = await asyncio.wait_for(scripted.tasks.get(), 10)
    assert "~control/w" in [tensor.name for tensor in task.model.signature.tensors]
    with pytest.raises(Exception, match=r"tensor '~control/w' is missing"):
        await scripted.upload(task, scripted.initial())
    await driving
    assert run.rounds[1, 1].participations[1].outcome == "rejected"


async def test_agents_that_know_no_methods_are_left_out_and_said_to_be(federation: Federation) -> None:
    await federation.connect("old", protocol_minor=0)
    scripted = await federation.connect("new")
    raw = {"method": {"name": "fedprox"}, "cohort": {"min_clients": 2}, "faults": {"wait_for_clients_seconds": 0.1}}
    strategy = StrategyConfig.model_validate(raw)
    run = federation.store.add(RunSpec(1, "test", "tests", "toy", "1", scripted.signature, strategy, 7, 1))
    await drive(federation, run)
    assert run.outcome is RunOutcome.FAILED
    assert "1 more must update fedagent for this strategy" in run.reason


async def test_an_engine_that_stops_while_the_model_is_made_ready_gives_the_run_back(
    federation: Federation, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    making, released, original = threading.Event(), threading.Event(), Payload.of

    def slow(parameters: Parameters, packing: Packing) -> Payload:
        making.set()
        released.wait(30)
        return original(parameters, packing)

    await launch()
    run = add_run(federation, 1, 1, method={"name": "scaffold"})
    driving = asyncio.create_task(federation.engine.run(1))
    await federation.until(lambda: 0 in run.models)
    monkeypatch.setattr(Payload, "of", slow)
    await asyncio.to_thread(making.wait, 10)
    port = federation.engine.port
    await federation.engine.stop()
    released.set()
    await driving
    assert run.outcome is None, run.reason
    monkeypatch.undo()
    await federation.start(port)
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED, run.reason


async def test_a_strategy_that_does_not_fit_the_app_fails_the_run_with_the_reason(federation: Federation) -> None:
    strategy = StrategyConfig.model_validate({"method": {"name": "fedbn"}})
    run = federation.store.add(RunSpec(1, "test", "tests", "digits-mlp", "1.0", SIGNATURE, strategy, 7, 1))
    await drive(federation, run)
    assert run.outcome is RunOutcome.FAILED
    assert "No tensor of the app is named like *bn*, *norm*" in run.reason
