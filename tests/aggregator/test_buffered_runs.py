"""Whole buffered runs (FedBuff): the engine and its gRPC server, with scripted agents over mutual TLS."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import pytest

from aggregator.buffered_driver import Fleet
from aggregator.core.config import StrategyConfig
from aggregator.hub import Assignment
from aggregator.memory import StoredRun
from aggregator.ports import Directive, RunOutcome, RunSpec
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters, Signature, TensorSpec
from tests.aggregator.conftest import Federation
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent


def add_run(federation: Federation, *, num_rounds: int, clients: int = 1, **mode: Any) -> StoredRun:
    faults = mode.pop("faults", {})
    strategy = StrategyConfig.model_validate(
        {
            "mode": {"name": "buffered", "buffer_size": 1, **mode},
            "cohort": {"min_clients": clients},
            "faults": {"quorum": 1, "deadline_seconds": 20, "wait_for_clients_seconds": 20, **faults},
        }
    )
    return federation.store.add(RunSpec(1, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, num_rounds))


def weight(federation: Federation, run: StoredRun, number: int) -> float:
    return float(federation.models.saved[run.models[number].key]["w"][0, 0])


async def drive(federation: Federation) -> None:
    async with asyncio.timeout(30):
        await federation.engine.run(1)


async def next_fit(agent: ScriptedAgent) -> task_pb2.Task:
    """The agent's next task to train; a first model is made on the way."""
    async with asyncio.timeout(10):
        while (task := await agent.tasks.get()).kind != task_pb2.TASK_KIND_FIT:
            await agent.do(task)
    return task


async def test_a_run_of_many_versions_counts_every_client_alike(federation: Federation) -> None:
    await federation.connect("a", num_examples=30, step=1.0)
    await federation.connect("b", num_examples=10, step=5.0)
    run = add_run(federation, num_rounds=5, clients=2, buffer_size=2)
    await drive(federation)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert [weight(federation, run, number) for number in range(6)] == [0, 3, 6, 9, 12, 15]
    for number in range(1, 6):
        outcomes = [p.outcome for p in run.rounds[number, 1].participations]
        assert outcomes == ["completed", "completed"]
        assert ("fit", "staleness", 0.0) in {(m.source, m.name, m.value) for m in run.metrics(number)}


async def test_examples_weigh_where_the_strategy_says_so(federation: Federation) -> None:
    await federation.connect("a", num_examples=30, step=1.0)
    await federation.connect("b", num_examples=10, step=5.0)
    run = add_run(federation, num_rounds=1, clients=2, buffer_size=2, weighting="examples")
    await drive(federation)
    assert weight(federation, run, 1) == 2.0


async def test_a_slow_client_holds_nobody_up_and_its_old_update_is_damped(federation: Federation) -> None:
    """Three versions pass; its step of 8 counts (1 + 3)^-1/2 = 1/2."""
    quick = await federation.connect("a", step=1.0, automatic=False)
    slow = await federation.connect("b", step=8.0, automatic=False)
    run = add_run(federation, num_rounds=4, clients=2)
    running = asyncio.create_task(drive(federation))
    for agent in (quick, slow):
        task = await asyncio.wait_for(agent.tasks.get(), 10)
        if task.kind == task_pb2.TASK_KIND_INITIALISE:
            await agent.do(task)
            break
    held = await next_fit(slow)
    for _ in range(3):
        await quick.do(await next_fit(quick))
    await federation.until(lambda: 3 in run.models)
    await next_fit(quick)  # the fourth round is open
    await slow.do(held)
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert [weight(federation, run, number) for number in range(5)] == [0, 1, 2, 3, 3 + 8 / 2]
    (last,) = [e for e in federation.sink.events if e.kind == "client.completed" and e.client_id == "b"]
    assert (last.data["staleness"], last.round_number) == (3, 4)
    assert ("fit", "staleness", 3.0) in {(m.source, m.name, m.value) for m in run.metrics(4)}
    assert [p.client_id for p in run.rounds[4, 1].participations] == ["b"]


async def test_the_events_name_every_client_and_say_who_trains_on(federation: Federation) -> None:
    quick = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=2)
    running = asyncio.create_task(drive(federation))
    first = await next_fit(quick)
    slow = await federation.connect("b", automatic=False)
    held = await next_fit(slow)  # in the middle of the round
    slow.send(progress=task_pb2.Progress(task_id=held.task_id, phase=task_pb2.PHASE_TRAINING))
    await federation.until(lambda: "client.phase" in federation.sink.kinds())
    await quick.do(first)
    await next_fit(quick)  # the second round is open
    await slow.do(held)
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    committed = [e.data["training"] for e in federation.sink.events if e.kind == "round.committed"]
    assert committed == [["b"], ["a"]]
    named = [(e.client_id, e.data["name"]) for e in federation.sink.events if e.kind.startswith("client.")]
    assert set(named) == {("a", "site a"), ("b", "site b")}


async def test_work_on_too_old_a_model_is_called_off_with_the_reason_and_asked_anew(federation: Federation) -> None:
    quick = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=3, max_staleness=0)
    running = asyncio.create_task(drive(federation))
    task = await next_fit(quick)
    slow = await federation.connect("b", automatic=False)
    old = await next_fit(slow)
    await quick.do(task)
    cancelled = await asyncio.wait_for(slow.cancelled.get(), 10)
    assert (cancelled.task_id, "more than 0 versions old" in cancelled.reason) == (old.task_id, True)
    fresh = await next_fit(slow)
    assert (old.round, fresh.round) == (1, 2)
    with pytest.raises(grpc.aio.AioRpcError, match="its round was closed"):
        await slow.do(old)
    await slow.do(fresh)
    await federation.until(lambda: 2 in run.models)
    run.directive = Directive.STOP
    federation.engine.nudge(1)
    await running


class HeldEvaluator:
    """Measures nothing, and holds the round that has been committed until it may go on."""

    def __init__(self) -> None:
        self.entered, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, parameters: Parameters) -> tuple[float, int, Mapping[str, float]]:
        if parameters["w"].any():  # not of the initial model
            self.entered.set()
            self.may_go_on.wait(20)
        return 0.0, 1, {}


async def until_refused(agent: ScriptedAgent, task: task_pb2.Task) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(grpc.aio.AioRpcError, match="no such task"):
            while True:
                await agent.download(task)


async def test_what_is_said_of_a_task_that_was_called_off_is_not_taken_for_the_next(federation: Federation) -> None:
    """The slow client fails while a version is made; it is asked anew before anybody has heard of it."""
    federation.evaluator = evaluator = HeldEvaluator()
    quick = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=2, max_staleness=0)
    running = asyncio.create_task(drive(federation))
    task = await next_fit(quick)
    slow = await federation.connect("b", automatic=False)
    old = await next_fit(slow)
    await quick.do(task)
    await federation.until(evaluator.entered.is_set)
    slow.report(old, task_pb2.TASK_OUTCOME_FAILED, reason="no data")
    await until_refused(slow, old)  # the hub has heard it
    evaluator.may_go_on.set()
    fresh = await next_fit(slow)
    assert (fresh.round, fresh.attempt) == (2, 1)
    await slow.do(fresh)
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert slow.tasks.empty()
    assert "client.failed" not in federation.sink.kinds()


async def test_a_run_holds_no_more_models_than_clients_train(federation: Federation) -> None:
    """Clients come one after the other, train and go."""
    run = add_run(federation, num_rounds=4)
    running = asyncio.create_task(drive(federation))
    for client_id in "abc":
        agent = await federation.connect(client_id, automatic=False)
        task = await next_fit(agent)
        await agent.upload(task, agent.trained(await agent.download(task)))
        await agent.hang_up()
    last = await federation.connect("d", automatic=False)
    task = await next_fit(last)
    gc.collect()
    alive = [one for one in gc.get_objects() if type(one) in (Fleet, Assignment)]
    (fleet,) = (one for one in alive if isinstance(one, Fleet) and one.round)
    models = [one.model for one in alive if isinstance(one, Assignment) and one.listener is fleet and one.model]
    assert len(models) == len(fleet.flights)
    assert {number for _, number in fleet.asked} == {task.round}
    await last.do(task)
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason


async def test_the_model_of_a_task_whose_update_is_here_is_sent_no_more(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=1, buffer_size=2)
    running = asyncio.create_task(drive(federation))
    task = await next_fit(agent)
    await agent.upload(task, agent.trained(await agent.download(task)))
    with pytest.raises(grpc.aio.AioRpcError, match="the task's update is here"):
        await agent.download(task)
    await federation.connect("b")
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason


async def test_a_late_client_is_called_off_and_asked_again(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=1, faults={"deadline_seconds": 1})
    running = asyncio.create_task(drive(federation))
    first = await next_fit(agent)
    assert "No update within" in (await asyncio.wait_for(agent.cancelled.get(), 10)).reason
    second = await next_fit(agent)
    assert (first.round, second.round, first.task_id != second.task_id) == (1, 1, True)
    await agent.do(second)
    await running
    assert run.outcome is RunOutcome.COMPLETED
    (failed,) = [e for e in federation.sink.events if e.kind == "client.failed"]
    assert failed.data["outcome"] == "late"


async def test_who_fails_again_and_again_is_left_in_peace_and_the_run_says_why(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=1, faults={"max_abandoned": 2})
    running = asyncio.create_task(drive(federation))
    for _ in range(6):
        agent.report(await next_fit(agent), task_pb2.TASK_OUTCOME_FAILED, reason="no data")
    await running
    assert run.outcome is RunOutcome.FAILED
    assert "nobody is left to train, and 1 client has failed 3 times" in run.reason
    assert sorted(run.abandoned) == [(1, 1), (1, 2)]


async def test_a_buffer_that_nobody_fills_is_given_up(federation: Federation) -> None:
    await federation.connect("a")
    run = add_run(federation, num_rounds=1, buffer_size=2, faults={"wait_for_clients_seconds": 0.1, "max_abandoned": 1})
    await drive(federation)
    assert run.outcome is RunOutcome.FAILED
    assert "The buffer has 1 of 2 updates, and no client has come to train within 0.1 s." in run.reason


async def test_the_wait_for_clients_ends_although_others_come_and_go(federation: Federation) -> None:
    await federation.connect("a")
    run = add_run(federation, num_rounds=1, buffer_size=2, faults={"wait_for_clients_seconds": 0.5, "max_abandoned": 1})
    running = asyncio.create_task(drive(federation))
    other = Signature((TensorSpec("v", "float32", (1,)),))
    for number in itertools.count():
        if running.done():
            break
        await (await federation.connect(f"b{number}", signature=other)).hang_up()
    await running
    assert "no client has come to train within 0.5 s." in run.reason


async def test_who_comes_while_the_round_waits_for_clients_is_not_late_when_the_wait_would_end(
    federation: Federation,
) -> None:
    """The wait began before its task, and is no longer: it would end first."""
    await federation.connect("a")
    faults = {"wait_for_clients_seconds": 2, "deadline_seconds": 2}
    run = add_run(federation, num_rounds=1, buffer_size=2, faults=faults)
    running = asyncio.create_task(drive(federation))
    await federation.until(lambda: "client.completed" in federation.sink.kinds())
    late = await federation.connect("b", automatic=False)
    await next_fit(late)
    await late.do(await next_fit(late))
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    failed = [event.data["reason"] for event in federation.sink.events if event.kind == "client.failed"]
    assert failed == ["No update within 2 s."]


async def test_a_bad_update_fails_its_client_and_not_the_run(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=1)
    running = asyncio.create_task(drive(federation))
    task = await next_fit(agent)
    broken = agent.initial() | {"w": np.full((4, 3), np.nan, "f4")}
    with pytest.raises(grpc.aio.AioRpcError, match="NaN or infinity"):
        await agent.upload(task, broken)
    agent.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="refused")
    await agent.do(await next_fit(agent))
    await running
    assert run.outcome is RunOutcome.COMPLETED
    assert [p.outcome for p in run.rounds[1, 1].participations] == ["completed"]


async def test_stop_calls_everybody_off_at_once(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=5)
    running = asyncio.create_task(drive(federation))
    task = await next_fit(agent)
    run.directive = Directive.STOP
    federation.engine.nudge(1)
    await running
    assert (await asyncio.wait_for(agent.cancelled.get(), 10)).task_id == task.task_id
    assert (run.outcome, sorted(run.models)) == (RunOutcome.STOPPED, [0])
    (abandoned,) = [e for e in federation.sink.events if e.kind == "round.abandoned"]
    assert abandoned.data["training"] == []


async def test_a_run_goes_on_after_its_last_version_on_another_engine(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, num_rounds=3)
    running = asyncio.create_task(federation.engine.run(1))
    await agent.do(await next_fit(agent))
    assert (await next_fit(agent)).round == 2
    port = federation.engine.port
    await federation.engine.stop()
    assert await running is False
    assert sorted(run.models) == [0, 1]
    federation.store.last_events[1] = federation.sink.events[-1].seq
    await federation.start(port)
    await federation.connect("a")
    await drive(federation)
    assert run.outcome is RunOutcome.COMPLETED
    assert [weight(federation, run, number) for number in range(4)] == [0, 1, 2, 3]
