"""The engine over the database, with an agent that sends what no database keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf, nan
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from aggregator.core.config import FaultsConfig, StrategyConfig
from fedui.analytics.adapters import DatabaseQueryStore
from fedui.analytics.models import Query
from fedui.runs.adapters import DatabaseEventSink, DatabaseRunStore
from fedui.runs.models import Event, Participation, Run
from fedui.strategies.models import StrategyVersion
from protos.fedui.v1 import task_pb2
from tests.aggregator.conftest import Federation
from tests.contracts import test_query_store, test_run_store
from tests.support.scripted_agent import ScriptedAgent

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = "\0 No,\x1b[2J never.\n"
CLEANED = "No, [2J never."


class Counting(ScriptedAgent):
    async def do(self, task: task_pb2.Task) -> None:
        self.report(task, answer=task_pb2.ColumnAnswer(count=12))


class Hostile(ScriptedAgent):
    async def do(self, task: task_pb2.Task) -> None:
        self.send(progress=task_pb2.Progress(task_id=task.task_id, phase=task_pb2.PHASE_TRAINING, message=WORDS))
        self.report(task, task_pb2.TASK_OUTCOME_REFUSED, reason=WORDS)


@pytest.fixture
async def federation() -> AsyncIterator[Federation]:
    federation = Federation()
    await federation.start(store=DatabaseRunStore(), events=DatabaseEventSink(), queries=DatabaseQueryStore())
    yield federation
    await federation.close()


async def test_a_query_ends_whatever_is_said_to_it(transactional_db: None, federation: Federation) -> None:
    query_id = (await sync_to_async(test_query_store.in_database)()).query_id
    place = str((await Query.objects.aget(pk=query_id)).federation_id)
    for name, kind in (("a", Counting), ("b", Counting), ("c", Hostile)):
        await federation.connect(name, kind, federation_id=place, columns=["age"])
    async with asyncio.timeout(30):
        assert await federation.engine.query(query_id)
    query = await Query.objects.aget(pk=query_id)
    assert query.status == "completed", query.reason
    assert query.result is not None
    assert query.result["left_out"] == [{"client": "site c", "reason": CLEANED}]


async def test_a_run_ends_whatever_is_said_to_it(transactional_db: None, federation: Federation) -> None:
    harness = await sync_to_async(test_run_store.in_database)()
    config = StrategyConfig(faults=FaultsConfig(quorum=1)).model_dump(mode="json")
    await StrategyVersion.objects.aupdate(config=config)
    run = await Run.objects.aget(pk=harness.run_id)
    good, bad = harness.clients
    options: dict[str, Any] = {"federation_id": str(run.federation_id), "signature": test_run_store.SIGNATURE}
    agent = await federation.connect(good, **options)
    agent.metrics = {"auc": nan, "best": inf, "epochs": 2}
    await federation.connect(bad, Hostile, **options)
    async with asyncio.timeout(60):
        assert await federation.engine.run(run.pk)
    await run.arefresh_from_db()
    assert (run.status, run.rounds_done) == ("completed", 3), run.reason
    refused = Participation.objects.filter(client_id=bad).values_list("outcome", "reason")
    assert {row async for row in refused} == {("refused", CLEANED)}
    kept = Participation.objects.filter(client_id=good).values_list("metrics", flat=True)
    assert [metrics async for metrics in kept] == [{"loss": 0.1, "auc": "nan", "best": "inf", "epochs": 2}] * 3
    assert await Event.objects.filter(kind="client.progress", message=CLEANED).acount() == 3
