"""Clients whose owners let them take no tasks: who is asked, what the operator is told, what owners are told of a round."""

from __future__ import annotations

import asyncio

from aggregator.core.config import StrategyConfig
from aggregator.ports import Level, RunOutcome, RunSpec
from protos import limits
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.aggregator.conftest import Federation
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent

PAUSED = "Paused by its owner."


def says(agent: ScriptedAgent, unavailable: str) -> None:
    agent.send(availability=fleet_pb2.Availability(unavailable=unavailable))


async def test_a_paused_client_is_not_asked_until_it_takes_tasks_again(federation: Federation) -> None:
    paused = await federation.connect("a", automatic=False, unavailable=PAUSED)
    await federation.connect("b")
    assert federation.registry.online["a"].unavailable == PAUSED
    running = asyncio.create_task(federation.run(clients=2))
    await federation.until(lambda: "run.waiting" in federation.sink.kinds())
    waiting = next(event for event in federation.sink.events if event.kind == "run.waiting")
    assert "1 of 2 are online; 1 more take no tasks now (site a: Paused by its owner)" in waiting.message
    assert paused.tasks.empty()
    paused.automatic = True
    says(paused, "")
    assert (await running).outcome is RunOutcome.COMPLETED
    assert federation.registry.online["a"].unavailable == ""


async def test_who_pauses_after_the_round_began_answers_for_itself_and_is_not_asked_again(
    federation: Federation,
) -> None:
    owner = await federation.connect("a", automatic=False)
    await federation.connect("b")
    running = asyncio.create_task(federation.run(clients=1, num_rounds=2, evaluate=False))
    task = await asyncio.wait_for(owner.tasks.get(), 10)
    if task.kind == task_pb2.TASK_KIND_INITIALISE:
        await owner.do(task)
        task = await asyncio.wait_for(owner.tasks.get(), 10)
    says(owner, PAUSED)
    owner.report(task, task_pb2.TASK_OUTCOME_REFUSED, reason=PAUSED)
    assert (await running).outcome is RunOutcome.COMPLETED
    refused = [event for event in federation.sink.events if event.kind == "client.refused"]
    assert [(e.round_number, e.level, e.data["reason"]) for e in refused] == [(1, Level.INFO, PAUSED)]
    assert "client.failed" not in federation.sink.kinds()
    assert owner.tasks.empty()


async def test_a_flood_of_changes_is_read_slowly_and_each_text_is_bounded(federation: Federation) -> None:
    agent = await federation.connect("a")
    for number in range(50):
        says(agent, f"{number} " + "x" * 10_000)
    await federation.until(lambda: federation.registry.online["a"].unavailable.startswith("1 "))
    assert len(federation.registry.online["a"].unavailable) == limits.MAX_UNAVAILABLE_LENGTH


async def test_a_task_tells_how_many_are_asked_and_how_few_may_make_a_model(federation: Federation) -> None:
    agents = [await federation.connect(name, automatic=False) for name in "abc"]
    running = asyncio.create_task(federation.run(clients=3, quorum=2))
    await agents[0].do(await asyncio.wait_for(agents[0].tasks.get(), 10))
    for agent in agents:
        task = await asyncio.wait_for(agent.tasks.get(), 10)
        assert task.protection == task_pb2.Protection(cohort=3, quorum=2)
        await agent.do(task)
    for agent in agents:
        evaluation = await asyncio.wait_for(agent.tasks.get(), 10)
        assert not evaluation.HasField("protection")
        await agent.do(evaluation)
    await running


async def test_in_a_buffered_run_the_buffer_is_the_cohort(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    mode = {"name": "buffered", "buffer_size": 1}
    strategy = StrategyConfig.model_validate({"mode": mode, "cohort": {"min_clients": 1}, "faults": {"quorum": 1}})
    federation.store.add(RunSpec(1, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, 1))
    running = asyncio.create_task(federation.engine.run(1))
    await agent.do(await asyncio.wait_for(agent.tasks.get(), 10))
    task = await asyncio.wait_for(agent.tasks.get(), 10)
    assert task.protection == task_pb2.Protection(cohort=1, quorum=1)
    await agent.do(task)
    assert await running
