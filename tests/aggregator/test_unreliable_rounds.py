"""Rounds among clients that come late, drop out, or work for other runs too: the engine, with scripted agents over mutual TLS."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import aio

from aggregator.core.cohort import select
from aggregator.core.config import StrategyConfig
from aggregator.memory import StoredRun
from aggregator.ports import RunOutcome, RunSpec
from protos import limits
from protos.fedui.v1 import task_pb2, transfer_pb2
from tests.aggregator.conftest import Federation
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent

FEDPROX: dict[str, Any] = {"method": {"name": "fedprox"}}


def add_run(federation: Federation, run_id: int = 1, num_rounds: int = 1, **parts: Any) -> StoredRun:
    raw: dict[str, Any] = {"evaluation": {"federated": False}, "cohort": {"min_clients": 1}}
    faults = {"quorum": 1, "deadline_seconds": 20, "wait_for_clients_seconds": 20, **parts.pop("faults", {})}
    strategy = StrategyConfig.model_validate({**raw, "faults": faults, **parts})
    return federation.store.add(RunSpec(run_id, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, num_rounds))


async def drive(federation: Federation, run: StoredRun) -> StoredRun:
    async with asyncio.timeout(30):
        await federation.engine.run(run.spec.run_id)
    return run


async def next_fit(agent: ScriptedAgent) -> task_pb2.Task:
    while (task := await asyncio.wait_for(agent.tasks.get(), 15)).kind != task_pb2.TASK_KIND_FIT:
        await agent.do(task)
    return task


def told(federation: Federation, kind: str) -> list[tuple[str | None, dict[str, Any]]]:
    return [(e.client_id, dict(e.data)) for e in federation.sink.events if e.kind == kind]


async def test_who_drops_out_is_replaced_by_the_next_of_the_order(federation: Federation) -> None:
    run = add_run(federation, cohort={"min_clients": 2, "max_clients": 2}, faults={"quorum": 2})
    chosen = select(run.spec.strategy.cohort, 7, 1, "abcd")
    for client in "abcd":
        await federation.connect(client, automatic=client != chosen.cohort[0])
    broken = federation.connections[chosen.cohort[0]]
    running = asyncio.create_task(drive(federation, run))
    broken.report(await next_fit(broken), task_pb2.TASK_OUTCOME_FAILED, reason="no data")
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    found = {p.client_id: (p.outcome, p.replaces) for p in run.rounds[1, 1].participations}
    assert found == {
        chosen.cohort[0]: ("failed", ""),
        chosen.cohort[1]: ("completed", ""),
        chosen.reserve[0]: ("completed", chosen.cohort[0]),
    }
    (closed,) = told(federation, "round.closed")
    assert (closed[1]["received"], closed[1]["expected"]) == (2, 2)


async def test_an_update_after_the_deadline_is_refused_before_its_bytes_and_the_operator_reads_by_how_much(
    federation: Federation,
) -> None:
    await federation.connect("a")
    slow = await federation.connect("b", automatic=False)
    faults = {"deadline_seconds": 0.3}
    run = add_run(federation, num_rounds=1_000, cohort={"min_clients": 2}, faults=faults)
    running = asyncio.create_task(drive(federation, run))
    task = await next_fit(slow)
    assert (await asyncio.wait_for(slow.cancelled.get(), 10)).task_id == task.task_id
    with pytest.raises(aio.AioRpcError) as refused:
        await slow.transfer.GetUpload(transfer_pb2.GetUploadRequest(task_id=task.task_id, sha256="0" * 64))
    running.cancel()
    assert "Too late by" in (refused.value.details() or "")
    assert limits.LATE_SECONDS in dict(refused.value.trailing_metadata() or ())
    await federation.until(lambda: bool(told(federation, "client.late")))
    client, data = told(federation, "client.late")[0]
    assert client == "b"
    assert data["seconds"] >= 0


async def test_clients_have_one_task_at_a_time_and_runs_take_turns(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    runs = [add_run(federation, run_id, num_rounds=3) for run_id in (1, 2)]
    running = [asyncio.create_task(drive(federation, run)) for run in runs]
    order, open_tasks = [], 0
    for _ in range(8):  # an initial model each, and three rounds
        task = await asyncio.wait_for(agent.tasks.get(), 15)
        assert agent.tasks.empty(), "a second task came while the first was in hand"
        order.append(task.run_id)
        await federation.until(lambda: len(federation.engine._hub.open_tasks()) >= open_tasks)
        await agent.do(task)
    await asyncio.gather(*running)
    assert {run.outcome for run in runs} == {RunOutcome.COMPLETED}
    assert sorted(order) == ["1"] * 4 + ["2"] * 4
    assert all(len(set(order[i : i + 3])) == 2 for i in range(6)), f"a run was starved: {order}"


async def test_a_round_waits_for_clients_busy_in_other_runs_and_its_deadline_stands_still(
    federation: Federation,
) -> None:
    agent = await federation.connect("a", automatic=False)
    long = add_run(federation, 1)
    first = asyncio.create_task(drive(federation, long))
    task = await next_fit(agent)
    short = add_run(federation, 2, faults={"deadline_seconds": 3})
    short.models.clear()
    second = asyncio.create_task(drive(federation, short))
    await federation.until(lambda: len(federation.engine._hub.open_tasks()) == 2)
    await agent.do(task)
    while not second.done():
        take = asyncio.create_task(agent.tasks.get())
        await asyncio.wait({take, second}, return_when=asyncio.FIRST_COMPLETED)
        if take.done():
            await agent.do(take.result())
        else:
            take.cancel()
    await first
    assert (long.outcome, short.outcome) == (RunOutcome.COMPLETED, RunOutcome.COMPLETED)


async def test_an_agent_that_takes_more_tasks_is_given_more(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False, max_tasks=2)
    runs = [add_run(federation, run_id) for run_id in (1, 2)]
    running = [asyncio.create_task(drive(federation, run)) for run in runs]
    both = [await asyncio.wait_for(agent.tasks.get(), 15) for _ in range(2)]
    assert {task.run_id for task in both} == {"1", "2"}
    agent.automatic = True
    for task in both:
        await agent.do(task)
    await asyncio.gather(*running)


async def test_unfinished_training_is_taken_where_the_strategy_allows_it(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, **FEDPROX)
    running = asyncio.create_task(drive(federation, run))
    task = await next_fit(agent)
    assert 0 < task.finish_after_seconds < task.deadline_seconds
    work = transfer_pb2.LocalWork(done=3, planned=10)
    await agent.upload(task, agent.trained(await agent.download(task)), work=work)
    agent.report(task)
    await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    (part,) = run.rounds[1, 1].participations
    assert (part.steps_done, part.steps_planned) == (3, 10)


@pytest.mark.parametrize(
    ("work", "reason"), [((3, 10), "takes whole work only"), ((0, 10), "0 of 10"), ((11, 10), "11 of 10")]
)
async def test_unfinished_training_is_refused_where_it_would_be_weighed_wrongly(
    federation: Federation, work: tuple[int, int], reason: str
) -> None:
    agent = await federation.connect("a", automatic=False)
    run = add_run(federation, faults={"max_abandoned": 1})
    running = asyncio.create_task(drive(federation, run))
    task = await next_fit(agent)
    assert task.finish_after_seconds == 0
    with pytest.raises(aio.AioRpcError, match=reason):
        await agent.upload(task, agent.initial(), work=transfer_pb2.LocalWork(done=work[0], planned=work[1]))
    agent.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="refused")
    await running
    assert run.outcome is RunOutcome.FAILED


@pytest.mark.parametrize("method", [{}, FEDPROX])
async def test_a_client_that_is_far_slower_than_usual_is_replaced_or_asked_for_what_it_has(
    federation: Federation, method: dict[str, Any]
) -> None:
    cohort = {"min_clients": 1, "max_clients": 1, "order": "cyclic"}
    run = add_run(federation, num_rounds=9, cohort=cohort, faults={"own_deadlines": True}, **method)
    await federation.connect("a")
    slow = await federation.connect("b", automatic=False)
    running = asyncio.create_task(drive(federation, run))
    for _ in range(3):
        await slow.do(await next_fit(slow))
    await next_fit(slow)  # and no answer
    (cancel,) = [await asyncio.wait_for(slow.cancelled.get(), 10)]
    assert "it usually takes" in cancel.reason
    assert cancel.finish == bool(method)
    running.cancel()
    expected = told(federation, "client.expected")
    assert {client for client, _ in expected} <= {"a", "b"}
    assert all(data["usual"] < data["seconds"] < 20 for _, data in expected)
    if method:
        await federation.until(lambda: bool(told(federation, "client.asked_to_finish")))
    else:
        await federation.until(lambda: bool(told(federation, "client.replaces")))
        assert told(federation, "client.replaces")[0] == ("a", {"name": "site a", "replaces": "b"})
