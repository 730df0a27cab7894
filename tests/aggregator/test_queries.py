"""Whole queries: the engine and its gRPC server, with scripted agents whose answers the agents' own code makes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from aggregator.core.analytics import QueryConfig
from aggregator.memory import MemoryQueryStore, StoredQuery
from aggregator.ports import QueryLease, QueryOutcome, QuerySpec
from client_agent import App, Context
from client_agent.queries import OpenColumns
from protos.fedui.v1 import task_pb2
from tests.aggregator.conftest import Federation
from tests.support.scripted_agent import ScriptedAgent

EVERYTHING = ("count", "sum", "mean", "std", "min", "max", "histogram", "quantiles")
POOL = {"a": np.arange(0.0, 40.0), "b": np.arange(100.0, 130.0), "c": np.full(12, 55.5)}


def add(federation: Federation, **config: Any) -> StoredQuery:
    parsed = QueryConfig.model_validate({"column": "age", "statistics": EVERYTHING, "deadline_seconds": 20} | config)
    return federation.queries.add(QuerySpec(1, "tests", "toy", "1", parsed))


async def serve(agent: ScriptedAgent, column: Any) -> None:
    """Answer each task as an agent with this column does."""
    app = App("toy", "1", "numpy", lambda context: pytest.fail("no client is made"), columns=lambda _: {"age": column})
    columns = OpenColumns.of(app, Context(agent.client_id))
    while True:
        task = await agent.tasks.get()
        agent.report(task, answer=columns.answer(task.query))


async def join(federation: Federation, name: str, **options: Any) -> ScriptedAgent:
    return await federation.connect(name, automatic=False, columns=["age"], **options)


async def run(federation: Federation) -> None:
    async with asyncio.timeout(30):
        await federation.engine.query(1)


async def test_the_result_is_that_of_the_pooled_values(federation: Federation) -> None:
    work = [asyncio.create_task(serve(await join(federation, name), column)) for name, column in POOL.items()]
    await federation.connect("without", automatic=False)
    query = add(federation, bins=13, quantiles=[0.5])
    await run(federation)
    pooled = np.concatenate(list(POOL.values()))
    assert query.outcome is QueryOutcome.COMPLETED, query.reason
    result = query.result
    assert result is not None
    assert (result["clients"], result["values"], result["left_out"]) == (3, len(pooled), [])
    assert result["figures"]["mean"] == pytest.approx(pooled.mean())
    assert result["figures"]["std"] == pytest.approx(pooled.std())
    assert (result["figures"]["min"], result["figures"]["max"]) == (0.0, 130.0)
    assert result["histogram"]["counts"] == np.histogram(pooled, result["histogram"]["edges"])[0].tolist()
    [median] = result["quantiles"]
    assert median["value"] == pytest.approx(np.quantile(pooled, 0.5, method="inverted_cdf"), abs=median["error"])
    assert federation.engine._hub.open_tasks() == set()  # nothing is left behind
    for task in work:
        task.cancel()


HOSTILE = {
    "not a finite": task_pb2.ColumnAnswer(count=12, sum=float("nan")),
    "number of values": task_pb2.ColumnAnswer(),
    "negative": task_pb2.ColumnAnswer(count=12, squared_deviations=-1.0),
}


async def test_what_was_not_asked_for_is_not_looked_at(federation: Federation) -> None:
    query = add(federation, statistics=["count"])
    running = asyncio.create_task(run(federation))
    for name, total in (("a", float("nan")), ("b", float("inf"))):
        agent = await join(federation, name)
        answer = task_pb2.ColumnAnswer(count=12, sum=total, squared_deviations=-1.0, low=9.0, high=-9.0, counts=[7])
        asyncio.get_running_loop().create_task(_answer_with(agent, answer))
    await running
    assert query.result is not None, query.reason
    assert query.result["figures"] == {"count": 24}


async def test_it_waits_for_the_clients_of_a_restarted_server(federation: Federation) -> None:
    port = federation.engine.port
    await federation.engine.stop()
    await federation.start(port, lost_after_seconds=1.0)
    query = add(federation, statistics=["count"])
    for name in "ab":
        asyncio.get_running_loop().create_task(_count_to_twelve(await join(federation, name)))
    running = asyncio.create_task(run(federation))
    asyncio.get_running_loop().create_task(_count_to_twelve(await join(federation, "late")))
    await running
    assert query.result is not None and query.result["clients"] == 3


@pytest.mark.parametrize("reason", HOSTILE)
async def test_a_hostile_answer_is_left_out_with_its_reason(federation: Federation, reason: str) -> None:
    work = [asyncio.create_task(serve(await join(federation, name), POOL[name])) for name in "ab"]
    bad = await join(federation, "bad")
    query = add(federation, statistics=["mean"])
    running = asyncio.create_task(run(federation))
    bad.report(await bad.tasks.get(), answer=HOSTILE[reason])
    await running
    assert query.result is not None, query.reason
    assert query.result["figures"]["mean"] == pytest.approx(np.concatenate([POOL["a"], POOL["b"]]).mean())
    assert query.result["clients"] == 2
    [left_out] = query.result["left_out"]
    assert left_out["client"] == "site bad"
    assert reason in left_out["reason"]
    for task in work:
        task.cancel()


async def test_too_few_answers_give_no_result(federation: Federation) -> None:
    one, other = await join(federation, "a"), await join(federation, "b")
    query = add(federation, statistics=["count"])
    running = asyncio.create_task(run(federation))
    one.report(await one.tasks.get(), answer=task_pb2.ColumnAnswer(count=12))
    other.report(await other.tasks.get(), task_pb2.TASK_OUTCOME_REFUSED, reason="Fewer than the 10 values.")
    await running
    assert (query.outcome, query.result) == (QueryOutcome.FAILED, None)
    assert query.reason == "1 clients answered; 2 are needed. site b: Fewer than the 10 values."


async def test_a_client_that_is_lost_or_late_does_not_hold_the_query_up(federation: Federation) -> None:
    a, b, lost, _late = [await join(federation, name) for name in ("a", "b", "lost", "late")]
    query = add(federation, statistics=["count"], deadline_seconds=1)
    running = asyncio.create_task(run(federation))
    for agent in (a, b):
        agent.report(await agent.tasks.get(), answer=task_pb2.ColumnAnswer(count=12))
    await lost.tasks.get()
    await lost.hang_up()
    await running
    assert query.result is not None, query.reason
    assert query.result["figures"]["count"] == 24
    assert {entry["client"]: entry["reason"] for entry in query.result["left_out"]} == {
        "site lost": "The connection was lost.",
        "site late": "The deadline has passed.",
    }


async def test_it_waits_for_its_clients_and_asks_only_those_with_the_labels(federation: Federation) -> None:
    query = add(federation, statistics=["count"], labels={"region": "north"})
    running = asyncio.create_task(run(federation))
    for name, region in (("a", "north"), ("x", "south"), ("b", "north")):
        agent = await join(federation, name, labels={"region": region})
        if region == "north":
            asyncio.get_running_loop().create_task(_count_to_twelve(agent))
    await running
    assert query.result is not None, query.reason
    assert query.result["figures"]["count"] == 24


async def _count_to_twelve(agent: ScriptedAgent) -> None:
    await _answer_with(agent, task_pb2.ColumnAnswer(count=12))


async def _answer_with(agent: ScriptedAgent, answer: task_pb2.ColumnAnswer) -> None:
    agent.report(await agent.tasks.get(), answer=answer)


async def test_without_clients_it_fails_and_says_so(federation: Federation) -> None:
    query = add(federation, deadline_seconds=1)
    await run(federation)
    assert query.outcome is QueryOutcome.FAILED
    assert query.reason.startswith("0 of 2 clients with column 'age' of toy 1 were online")


class _WithoutRoom(MemoryQueryStore):
    """Can keep no result."""

    async def finish(
        self, lease: QueryLease, outcome: QueryOutcome, reason: str, result: Mapping[str, Any] | None
    ) -> None:
        if result is not None:
            raise OSError("No space left on device: /var/lib/database")
        await super().finish(lease, outcome, reason, result)


async def test_a_query_whose_result_can_not_be_stored_ends_all_the_same() -> None:
    federation = Federation()
    federation.queries = _WithoutRoom()
    await federation.start()
    for name in "ab":
        asyncio.get_running_loop().create_task(_count_to_twelve(await join(federation, name)))
    query = add(federation, statistics=["count"])
    await run(federation)
    assert (query.outcome, query.result) == (QueryOutcome.FAILED, None)
    assert query.reason == "The result could not be stored. The worker's log says why."
    await federation.close()


async def test_a_cancelled_query_lets_its_clients_go(federation: Federation) -> None:
    one, _ = await join(federation, "a"), await join(federation, "b")
    query = add(federation)
    running = asyncio.create_task(run(federation))
    task = await one.tasks.get()
    federation.queries.cancel(1)
    federation.engine.nudge_query(1)
    await running
    assert (await one.cancelled.get()).task_id == task.task_id
    assert (query.outcome, query.result) == (None, None)


async def test_another_engine_takes_up_what_one_gave_back(federation: Federation) -> None:
    agents = [await join(federation, name) for name in "ab"]
    query = add(federation, statistics=["count"])
    running = asyncio.create_task(run(federation))
    for agent in agents:
        await agent.tasks.get()
    await federation.engine.drain()
    await running
    taken = await federation.queries.take_up(1, "another")
    assert taken is not None
    assert (taken[1].fencing, query.outcome) == (2, None)


async def test_an_upload_to_a_query_is_refused(federation: Federation) -> None:
    one, other = await join(federation, "a"), await join(federation, "b")
    query = add(federation, statistics=["count"])
    running = asyncio.create_task(run(federation))
    task = await one.tasks.get()
    with pytest.raises(Exception, match="NOT_FOUND|FAILED_PRECONDITION|INVALID_ARGUMENT"):
        await one.upload(task, one.initial())
    one.report(task, answer=task_pb2.ColumnAnswer(count=12))
    await _count_to_twelve(other)
    await running
    assert query.outcome is QueryOutcome.COMPLETED


@pytest.mark.parametrize("columns", [[""], ["n" * 64], ["age\0"], [str(n) for n in range(257)]])
async def test_an_agent_that_offers_impossible_columns_is_sent_away(federation: Federation, columns: list[str]) -> None:
    agent = await federation.connect("a", columns=columns)
    assert "column" in (await agent.goodbye).reason.lower()
