"""Pausing, going on, extending and forking, with a real engine and agents over gRPC."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aggregator.core.config import StrategyConfig
from aggregator.memory import MemoryModelStore, StoredRun
from aggregator.ports import Directive, ModelRecord, Origin, RunOutcome, RunSpec, StoreUnavailable
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters
from tests.aggregator.conftest import Federation
from tests.support.scripted_agent import SIGNATURE

FAULTS = {"quorum": 2, "deadline_seconds": 20}


def add(federation: Federation, run_id: int, num_rounds: int, **parts: Any) -> StoredRun:
    config = StrategyConfig.model_validate({"faults": FAULTS, "evaluation": {"federated": False}, **parts})
    return federation.store.add(RunSpec(run_id, "test", "tests", "toy", "1", SIGNATURE, config, 7, num_rounds))


async def drive(federation: Federation, run: StoredRun) -> StoredRun:
    events = [event.seq for event in federation.sink.events if event.run_id == run.spec.run_id]
    federation.store.last_events[run.spec.run_id] = max(events, default=0)
    async with asyncio.timeout(30):
        await federation.engine.run(run.spec.run_id)
    return run


async def wish(federation: Federation, run: StoredRun, directive: Directive) -> None:
    run.directive = directive
    federation.engine.nudge(run.spec.run_id)


def kinds(federation: Federation, run_id: int = 1) -> list[str]:
    events = [e for e in federation.sink.events if e.run_id == run_id]
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    return [e.kind for e in events]


def model_of(federation: Federation, run_id: int, number: int) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in federation.models.saved[f"run-{run_id}/round-{number}"].items()}


async def held_in_round_one(federation: Federation, run: StoredRun) -> tuple[Any, Any, asyncio.Task[StoredRun]]:
    """Two agents that have been asked to train and have not answered; the one that made the initial model first."""
    agents = [await federation.connect(client_id, automatic=False) for client_id in "ab"]
    running = asyncio.create_task(drive(federation, run))
    asked = asyncio.create_task(agents[0].tasks.get()), asyncio.create_task(agents[1].tasks.get())
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    first = asked.index(next(iter(done)))
    task = asked[first].result()
    assert task.kind == task_pb2.TASK_KIND_INITIALISE
    await agents[first].do(task)
    own = await asyncio.wait_for(agents[first].tasks.get(), 10)
    other = await asyncio.wait_for(asked[1 - first], 10)
    return (agents[first], own), (agents[1 - first], other), running


async def test_a_pause_lets_the_round_end_and_the_run_goes_on_after_it(federation: Federation) -> None:
    run = add(federation, 1, 3)
    (one, first), (two, second), running = await held_in_round_one(federation, run)
    await wish(federation, run, Directive.PAUSE)
    await federation.until(lambda: "run.pausing" in kinds(federation))
    await one.do(first)
    await two.do(second)
    await asyncio.wait_for(running, 20)
    assert (run.paused, run.rounds_done, run.outcome) == (True, 1, None)
    assert kinds(federation)[-1] == "run.paused"

    run.paused = False
    one.automatic = two.automatic = True
    await drive(federation, run)
    assert (run.outcome, run.rounds_done) == (RunOutcome.COMPLETED, 3)
    assert not run.abandoned


async def test_a_pause_now_drops_the_round(federation: Federation) -> None:
    run = add(federation, 1, 2)
    (one, _), (two, _), running = await held_in_round_one(federation, run)
    await wish(federation, run, Directive.PAUSE_NOW)
    await asyncio.wait_for(running, 20)
    assert (run.paused, run.rounds_done) == (True, 0)
    assert run.abandoned == {(1, 1): "The run was paused."}
    run.paused = False
    one.automatic = two.automatic = True
    await drive(federation, run)
    assert run.outcome is RunOutcome.COMPLETED
    assert (1, 2) in run.rounds


async def test_a_pause_that_is_taken_back_in_time_costs_nothing(federation: Federation) -> None:
    run = add(federation, 1, 1)
    (one, first), (two, second), running = await held_in_round_one(federation, run)
    await wish(federation, run, Directive.PAUSE)
    await federation.until(lambda: "run.pausing" in kinds(federation))
    await wish(federation, run, Directive.GO_ON)
    await federation.until(lambda: "run.unpaused" in kinds(federation))
    await one.do(first)
    await two.do(second)
    await asyncio.wait_for(running, 20)
    assert run.outcome is RunOutcome.COMPLETED


async def test_a_run_that_waits_for_clients_pauses_at_once(federation: Federation) -> None:
    run = add(federation, 1, 1)
    running = asyncio.create_task(drive(federation, run))
    await federation.until(lambda: "run.waiting" in kinds(federation))
    await wish(federation, run, Directive.PAUSE)
    await asyncio.wait_for(running, 10)
    assert run.paused


class FullStore(MemoryModelStore):
    full = True

    async def save(self, run_id: int, round_number: int, *args: Any) -> ModelRecord:
        if self.full and round_number == 1:
            raise StoreUnavailable("The model store fails: No space left on device.")
        return await super().save(run_id, round_number, *args)


async def test_a_full_store_pauses_the_run_until_there_is_room() -> None:
    federation = Federation()
    federation.models = FullStore()
    await federation.start()
    try:
        for client_id in "ab":
            await federation.connect(client_id)
        run = await drive(federation, add(federation, 1, 2))
        assert run.paused
        assert run.reason == "The model store fails: No space left on device. Put that right and resume the run."
        federation.models.full, run.paused = False, False
        assert (await drive(federation, run)).outcome is RunOutcome.COMPLETED
    finally:
        await federation.close()


@pytest.mark.parametrize(
    "parts",
    [
        {"optimizer": {"name": "adam"}},
        {"aggregation": {"name": "median"}, "cohort": {"order": "cyclic", "max_clients": 2}},
    ],
    ids=["adam", "median"],
)
async def test_a_run_that_is_extended_has_the_bits_of_one_that_was_longer_from_the_beginning(
    federation: Federation, parts: dict[str, Any]
) -> None:
    assert not StrategyConfig.model_validate(parts).depends_on_num_rounds
    for client_id, step in {"a": 0.1, "b": 0.25, "c": -0.3}.items():
        await federation.connect(client_id, step=step)
    whole = await drive(federation, add(federation, 1, 8, **parts))
    part = await drive(federation, add(federation, 2, 5, **parts))
    assert (whole.outcome, part.outcome) == (RunOutcome.COMPLETED, RunOutcome.COMPLETED), (whole.reason, part.reason)
    part.outcome, part.spec = None, replace(part.spec, num_rounds=8)
    await drive(federation, part)
    assert part.rounds_done == 8
    assert model_of(federation, 1, 8) == model_of(federation, 2, 8)


async def test_more_rounds_that_are_wanted_while_it_runs_leave_it_for_the_next_engine(federation: Federation) -> None:
    run = add(federation, 1, 2)
    (one, first), (two, second), running = await held_in_round_one(federation, run)
    run.wanted_rounds = 4
    one.automatic = two.automatic = True
    await one.do(first)
    await two.do(second)
    await asyncio.wait_for(running, 20)
    assert (run.outcome, run.rounds_done, kinds(federation)[-1]) == (None, 2, "run.extended")
    await drive(federation, run)
    assert (run.outcome, run.rounds_done) == (RunOutcome.COMPLETED, 4)


def test_what_depends_on_the_number_of_rounds_is_said() -> None:
    config = StrategyConfig.model_validate({"local": {"schedule": {"name": "cosine"}}})
    assert config.depends_on_num_rounds == ("the learning rate",)


def forked(
    federation: Federation, run: StoredRun, number: int, run_id: int, num_rounds: int, **parts: Any
) -> StoredRun:
    fork = add(federation, run_id, num_rounds, **parts)
    fork.origin = Origin("test", run.models[number], run.spec.strategy)
    return fork


async def test_a_fork_goes_on_with_model_and_optimizer_of_the_committed_round(federation: Federation) -> None:
    """Its two rounds are what rounds 3 and 4 of the run were, as long as nobody is drawn by lot."""
    adam = {"optimizer": {"name": "adam"}}
    for client_id, step in {"a": 0.1, "b": 0.25}.items():
        await federation.connect(client_id, step=step)
    run = await drive(federation, add(federation, 1, 4, **adam))
    fork = await drive(federation, forked(federation, run, 2, 2, 2, **adam))
    assert fork.outcome is RunOutcome.COMPLETED, fork.reason
    assert model_of(federation, 2, 0) == model_of(federation, 1, 2)
    assert model_of(federation, 2, 2) == model_of(federation, 1, 4)
    assert "model.initialised" in kinds(federation, 2)


async def test_a_fork_with_another_optimizer_begins_its_state_anew(federation: Federation) -> None:
    for client_id in "ab":
        await federation.connect(client_id)
    run = await drive(federation, add(federation, 1, 2, optimizer={"name": "adam"}))
    fork = await drive(federation, forked(federation, run, 2, 2, 1, optimizer={"name": "momentum"}))
    assert fork.outcome is RunOutcome.COMPLETED, fork.reason
    assert federation.models.states["run-2/round-0"] == {}
    assert all(not name.startswith("adam") for name in federation.models.states["run-2/round-1"])


async def test_a_fork_is_taken_up_again_from_its_own_rounds(federation: Federation) -> None:
    for client_id in "ab":
        await federation.connect(client_id)
    run = await drive(federation, add(federation, 1, 2))
    fork = await drive(federation, forked(federation, run, 2, 2, 1))
    del federation.models.saved["run-1/round-2"]  # it has no need of its origin any more
    fork.outcome, fork.spec = None, replace(fork.spec, num_rounds=2)
    assert (await drive(federation, fork)).outcome is RunOutcome.COMPLETED


async def test_a_state_that_can_not_be_gone_on_from_fails_the_fork_with_the_reason(federation: Federation) -> None:
    for client_id in "ab":
        await federation.connect(client_id)
    run = await drive(federation, add(federation, 1, 1, optimizer={"name": "adam"}))
    nonsense: Parameters = {"nonsense": np.zeros(1, np.float32)}
    federation.models.states["run-1/round-1"] = nonsense
    fork = await drive(federation, forked(federation, run, 1, 2, 1, optimizer={"name": "adam"}))
    assert fork.outcome is RunOutcome.FAILED
    assert "The state of test can't be gone on from" in fork.reason
