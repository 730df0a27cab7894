"""Clients of Flower 1.42, unmodified, in runs of FedUI's engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np

from aggregator.core.config import StrategyConfig
from aggregator.memory import StoredRun
from aggregator.ports import RunOutcome, RunSpec
from client_agent.flower.offer import Offer
from protos.tensors import Parameters, Signature, TensorSpec
from tests.aggregator.conftest import Federation
from tests.flower.conftest import Bridges, Sites, online

WEIGHTS = Signature((TensorSpec("weights", "float32", (2, 3)), TensorSpec("count", "int64", ())))
HISTOGRAM = Signature((TensorSpec("histogram", "int64", (3,)),))


async def train(federation: Federation, rounds: int, signature: Signature = WEIGHTS, **parts: Any) -> StoredRun:
    strategy = StrategyConfig.model_validate({"local": {"extra": {"pace": "slow"}}, **parts})
    run = federation.store.add(RunSpec(1, "test", "tests", "toy", "1", signature, strategy, 7, rounds))
    async with asyncio.timeout(60):
        await federation.engine.run(1)
    return run


def model(federation: Federation, run: StoredRun, number: int) -> Parameters:
    return federation.models.saved[run.models[number].key]


async def test_clients_started_in_each_way_train_together(
    federation: Federation, bridges: Bridges, sites: Sites
) -> None:
    address = await bridges.start("a", "b", "c")
    for step, kind in enumerate(["numpy", "client", "client_fn"], start=1):
        sites.start(kind, address, step)
    await online(federation, "a", "b", "c")
    run = await train(federation, 2, cohort={"min_clients": 3})
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    trained = model(federation, run, 2)
    assert trained["weights"].dtype == np.float32
    assert (trained["weights"] == 4).all()  # the mean of the steps, twice
    assert trained["count"] == 2
    last = run.rounds[2, 1].participations
    assert [(p.num_examples, p.metrics) for p in last] == [
        (10, {"told_round": 2, "told_pace": "slow", "name": "site"}) for _ in range(3)
    ]
    assert [(p.evaluation_loss, p.evaluation_num_examples, p.evaluation_metrics) for p in last] == [
        (4.0, 5, {"count": 2}) for _ in range(3)
    ]
    await bridges.stop()
    assert [await sites.end(number) for number in range(3)] == [0, 0, 0], sites.said(0)


async def test_a_client_that_fails_ends_its_participation_and_not_the_run(
    federation: Federation, bridges: Bridges, sites: Sites
) -> None:
    for name, kind in (("a", "client"), ("b", "failing")):
        sites.start(kind, await bridges.start(name), 1)
    await online(federation, "a", "b")
    run = await train(federation, 1, faults={"quorum": 1})
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    good, bad = run.rounds[1, 1].participations
    assert (good.outcome, bad.outcome) == ("completed", "failed")
    assert "left while it was at work" in bad.reason
    assert (model(federation, run, 1)["weights"] == 1).all()
    assert await sites.end(1) != 0
    assert "no data today" in sites.said(1)


async def test_clients_that_only_fit_take_part_in_statistics(
    federation: Federation, bridges: Bridges, sites: Sites, tmp_path: Path
) -> None:
    np.savez(tmp_path / "nothing.npz", histogram=np.zeros(3, np.int64))
    offer = Offer.of("toy", "1", None, tmp_path / "nothing.npz")
    address = await bridges.start("a", "b", offer=offer)
    for _ in range(2):
        sites.start("fit_only", address)
    await online(federation, "a", "b")
    run = await train(federation, 1, HISTOGRAM)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert model(federation, run, 1)["histogram"].tolist() == [1, 2, 3]
    assert [p.evaluation_loss for p in run.rounds[1, 1].participations] == [None, None]
