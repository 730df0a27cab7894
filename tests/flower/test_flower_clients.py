"""Clients of Flower 1.42, unmodified, in a run of FedUI's engine."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from aggregator.core.config import StrategyConfig
from aggregator.memory import StoredRun
from aggregator.ports import RunOutcome, RunSpec
from client_agent.flower.offer import Offer
from protos.tensors import Parameters, Signature, TensorSpec
from tests.aggregator.conftest import Federation
from tests.flower.conftest import Bridges, Sites

SIGNATURE = Signature((TensorSpec("weights", "float32", (2, 3)), TensorSpec("count", "int64", ())))
ON_ONE_PORT = ("a", "b", "c")


async def train(federation: Federation, clients: int, rounds: int, run_id: int = 1, **parts: Any) -> StoredRun:
    strategy = {"cohort": {"min_clients": clients}, "local": {"extra": {"pace": "slow"}}, **parts}
    signature = parts.pop("signature", SIGNATURE)
    config = StrategyConfig.model_validate(strategy)
    run = federation.store.add(RunSpec(run_id, "test", "tests", "toy", "1", signature, config, 7, rounds))
    async with asyncio.timeout(60):
        await federation.engine.run(run_id)
    return run


def model(federation: Federation, run: StoredRun, number: int) -> Parameters:
    return federation.models.saved[run.models[number].key]


async def online(federation: Federation, *names: str) -> None:
    async with asyncio.timeout(60):
        while set(federation.registry.online) != set(names):
            await asyncio.sleep(0.02)


async def test_clients_started_in_each_way_train_together(federation: Federation, bridges: Bridges, sites: Sites) -> None:
    address = await bridges.start(*ON_ONE_PORT)
    for step, kind in enumerate(["numpy", "client", "client_fn"], start=1):
        sites.start(kind, address, step)
    await online(federation, *ON_ONE_PORT)
    run = await train(federation, 3, 2)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    trained = model(federation, run, 2)
    assert trained["weights"].dtype == np.float32
    assert (trained["weights"] == 4).all()
    assert trained["count"] == 2
    print(run.rounds[2, 1])
    await bridges.stop()
    assert [await sites.end(number) for number in range(3)] == [0, 0, 0]
