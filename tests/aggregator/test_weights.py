"""What an operator makes clients count for: the engine reads it as a round opens."""

from __future__ import annotations

import numpy as np

from aggregator.memory import StoredRun
from aggregator.ports import RunOutcome
from tests.aggregator.conftest import Federation


def weight(federation: Federation, run: StoredRun, number: int) -> float:
    return float(federation.models.saved[run.models[number].key]["w"][0, 0])


async def drive(federation: Federation, run: StoredRun) -> None:
    await federation.engine.run(run.spec.run_id)
    assert run.outcome is RunOutcome.COMPLETED, run.reason


async def test_a_client_can_count_for_less_without_rounding(federation: Federation) -> None:
    await federation.connect("a", num_examples=3, step=1.0)
    await federation.connect("b", num_examples=1, step=5.0)
    run = federation.add_run(num_rounds=1)
    run.weights["a"] = 25
    await drive(federation, run)
    assert weight(federation, run, 1) == np.float32((3 * 25 * 1.0 + 100 * 5.0) / 175)
    [event] = [event for event in federation.sink.events if event.kind == "run.weighed"]
    assert event.message == "From round 1 on, clients by the operator's order: 1 of less weight"


async def test_who_is_excluded_is_not_asked_and_may_come_back(federation: Federation) -> None:
    a = await federation.connect("a", num_examples=3, step=1.0)
    await federation.connect("b", num_examples=1, step=5.0)
    run = federation.add_run(num_rounds=1, clients=1)
    run.weights["a"] = 0
    await drive(federation, run)
    assert weight(federation, run, 1) == 5.0
    assert a.tasks.empty()
    assert [report.client_id for report in run.rounds[1, 1].participations] == ["b"]
