"""`manage.py reproduce_run` over the engine and the database: the same models, bit by bit, though an operator had his say meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command

from fedui.runs.models import ModelVersion, Run
from protos.fedui.v1 import task_pb2
from tests.aggregator.conftest import Federation
from tests.contracts import test_run_store
from tests.contracts.test_hostile_agents import federation  # noqa: F401  # a fixture
from tests.support.scripted_agent import ScriptedAgent

pytestmark = pytest.mark.django_db(transaction=True)


class Interrupted(ScriptedAgent):
    """In the middle of its first training its operator makes it count for less, from the next round on."""

    harness: test_run_store.Harness | None = None

    async def do(self, task: task_pb2.Task) -> None:
        if task.kind == task_pb2.TASK_KIND_FIT and self.harness:
            harness, self.harness = self.harness, None
            await harness.weigh(self.client_id, 25)
        await super().do(task)


async def test_a_run_that_is_reproduced_has_the_same_models(transactional_db: None, federation: Federation) -> None:  # noqa: F811
    harness = await sync_to_async(test_run_store.in_database)()
    options: dict[str, Any] = {"federation_id": harness.federation_id, "signature": test_run_store.SIGNATURE}
    one, two = harness.clients
    first = await federation.connect(one, Interrupted, num_examples=30, step=0.3, **options)
    assert isinstance(first, Interrupted)
    first.harness = harness
    await federation.connect(two, num_examples=7, step=-0.7, **options)

    async def models_of(run_id: int) -> list[bytes]:
        async with asyncio.timeout(60):
            assert await federation.engine.run(run_id)
        run = await Run.objects.aget(pk=run_id)
        assert (run.status, run.rounds_done) == ("completed", 3), run.reason
        keys = ModelVersion.objects.filter(run=run).order_by("round_number").values_list("key", flat=True)
        return [federation.models.saved[key]["w"].tobytes() async for key in keys]

    before = await models_of(harness.run_id)
    await sync_to_async(call_command)("reproduce_run", str(harness.run_id))
    again = await Run.objects.exclude(pk=harness.run_id).aget()
    assert len(set(before)) == 4
    assert await models_of(again.pk) == before

    await again.commands.all().adelete()
    await sync_to_async(call_command)("reproduce_run", str(again.pk))
    without = await Run.objects.exclude(pk__in={harness.run_id, again.pk}).aget()
    different = await models_of(without.pk)
    assert [a == b for a, b in zip(different, before, strict=True)] == [True, True, False, False]
