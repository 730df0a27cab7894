"""Whole runs: the engine and its gRPC server, with scripted agents over mutual TLS."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grpc import aio

from aggregator import failpoints
from aggregator.core.config import CohortConfig, EvaluationConfig, FaultsConfig, StrategyConfig
from aggregator.core.strategies.fedavg import Mean
from aggregator.core.strategies.fedmedian import Median
from aggregator.memory import StoredRun
from aggregator.ports import Directive, RunOutcome, RunSpec, RunState
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters
from tests.aggregator.conftest import Federation
from tests.support.scripted_agent import SIGNATURE


async def test_a_run_averages_by_examples_and_keeps_every_model(federation: Federation) -> None:
    await federation.connect("a", num_examples=30, step=1.0)
    await federation.connect("b", num_examples=10, step=5.0)
    run = await federation.run(num_rounds=3)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert sorted(run.models) == [0, 1, 2, 3]
    for number, record in run.models.items():
        np.testing.assert_array_equal(federation.models.saved[record.key]["w"], np.full((4, 3), 2.0 * number, "f4"))
    assert federation.models.saved[run.models[3].key]["steps"].dtype == np.int64
    means = {(m.source, m.name): m.value for m in run.metrics(3)}
    assert means["fit", "loss"] == pytest.approx((30 / 30 + 10 / 10) / 40)
    assert means["federated", "loss"] == pytest.approx(6.0)


async def test_events_tell_the_story_in_order(federation: Federation) -> None:
    await federation.connect("a")
    await federation.connect("b")
    await federation.run()
    kinds = federation.sink.kinds()
    assert [event.seq for event in federation.sink.events] == list(range(1, len(kinds) + 1))
    story = [k for k in kinds if not k.startswith("client.")]
    assert story == [
        "run.started",
        "model.initialised",
        "round.started",
        "round.closed",
        "round.committed",
        "round.evaluated",
        "run.finished",
    ]
    assert kinds.count("client.completed") == kinds.count("client.evaluated") == 2
    assert kinds.index("client.completed") < kinds.index("round.closed")
    assert "client.failed" not in kinds


async def test_the_server_evaluates_where_the_app_brings_an_evaluator(federation: Federation) -> None:
    federation.evaluator = lambda parameters: (float(parameters["w"].sum()), 50, {"accuracy": 0.5})
    await federation.connect("a")
    run = await federation.run(clients=1, evaluate=False)
    assert {(m.source, m.name, m.value) for m in run.metrics(1)} >= {
        ("server", "loss", 12.0),
        ("server", "accuracy", 0.5),
    }


async def test_an_evaluator_that_raises_does_not_end_the_run(federation: Federation) -> None:
    def broken(parameters: Parameters) -> tuple[float, int, dict[str, float]]:
        if parameters["w"].any():
            raise ValueError("no data")
        return 0.0, 1, {}

    federation.evaluator = broken
    await federation.connect("a")
    run = await federation.run(clients=1)
    assert run.outcome is RunOutcome.COMPLETED
    assert "round.evaluation_failed" in federation.sink.kinds()


async def test_a_client_that_fails_or_refuses_is_named_with_its_reason(federation: Federation) -> None:
    await federation.connect("a")
    broken = await federation.connect("b", automatic=False)
    running = asyncio.create_task(federation.run())
    task = await asyncio.wait_for(broken.tasks.get(), 10)
    broken.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="MemoryError: the batch is too large")
    run = await running
    assert run.outcome is RunOutcome.COMPLETED
    (failed,) = [e for e in federation.sink.events if e.kind == "client.failed"]
    assert failed.client_id == "b"
    assert "the batch is too large" in failed.message
    assert run.rounds[1, 1].participations[1].outcome == "failed"


async def test_the_deadline_cuts_a_straggler_and_its_late_update_is_refused(federation: Federation) -> None:
    await federation.connect("a", step=2.0)
    slow = await federation.connect("b", automatic=False)
    running = asyncio.create_task(federation.run(deadline=0.3))
    task = await asyncio.wait_for(slow.tasks.get(), 10)
    assert (await asyncio.wait_for(slow.cancelled.get(), 10)).task_id == task.task_id
    with pytest.raises(Exception, match="Too late by"):
        await slow.upload(task, slow.initial())
    run = await running
    assert run.outcome is RunOutcome.COMPLETED
    assert run.rounds[1, 1].participations[1].outcome == "late"
    assert federation.models.saved[run.models[1].key]["w"][0, 0] == 2.0


async def test_a_client_that_vanishes_is_lost_after_the_grace(federation: Federation) -> None:
    await federation.connect("a")
    gone = await federation.connect("b", automatic=False)
    running = asyncio.create_task(federation.run())
    await asyncio.wait_for(gone.tasks.get(), 10)
    await gone.hang_up()
    run = await running
    assert run.outcome is RunOutcome.COMPLETED
    assert run.rounds[1, 1].participations[1].outcome == "lost"


async def test_a_client_that_comes_back_in_time_is_given_its_task_again(federation: Federation) -> None:
    federation.engine._hub._lost_after_seconds = 60.0
    await federation.connect("a")
    first = await federation.connect("b", automatic=False)
    running = asyncio.create_task(federation.run())
    await asyncio.wait_for(first.tasks.get(), 10)
    await first.hang_up()
    await federation.connect("b")
    run = await running
    assert [p.outcome for p in run.rounds[1, 1].participations] == ["completed", "completed"]


async def test_stop_ends_the_run_and_keeps_what_was_committed(federation: Federation) -> None:
    idle = await federation.connect("a", automatic=False)
    run = federation.add_run(num_rounds=5, clients=1)
    running = asyncio.create_task(federation.engine.run(1))
    await idle.do(await asyncio.wait_for(idle.tasks.get(), 10))
    task = await asyncio.wait_for(idle.tasks.get(), 10)
    run.directive = Directive.STOP
    federation.engine.nudge(1)
    await asyncio.wait_for(running, 10)
    assert (await asyncio.wait_for(idle.cancelled.get(), 10)).task_id == task.task_id
    assert (run.outcome, sorted(run.models)) == (RunOutcome.STOPPED, [0])


async def test_stop_while_waiting_for_clients(federation: Federation) -> None:
    run = federation.add_run(clients=3)
    running = asyncio.create_task(federation.engine.run(1))
    await federation.until(lambda: "run.waiting" in federation.sink.kinds())
    run.directive = Directive.STOP
    federation.engine.nudge(1)
    await asyncio.wait_for(running, 10)
    assert run.outcome is RunOutcome.STOPPED


async def test_a_run_waits_for_clients_and_begins_when_they_come(federation: Federation) -> None:
    await federation.connect("a")
    running = asyncio.create_task(federation.run(clients=2))
    await federation.until(lambda: "run.waiting" in federation.sink.kinds())
    await federation.connect("b")
    assert (await running).outcome is RunOutcome.COMPLETED


async def test_a_run_whose_clients_do_not_come_fails_and_says_so(federation: Federation) -> None:
    run = await federation.run(clients=2, wait=0.1)
    assert run.outcome is RunOutcome.FAILED
    assert "Only 0 of 2 clients that offer toy 1" in run.reason


async def test_only_clients_with_the_labels_and_the_app_take_part(federation: Federation) -> None:
    chosen = await federation.connect("a", labels={"modality": "ecg", "country": "de"})
    await federation.connect("b", labels={"modality": "mri"})
    run = await federation.run(clients=1, labels={"modality": "ecg"})
    assert [p.client_id for p in run.rounds[1, 1].participations] == [chosen.client_id]


async def test_rounds_without_quorum_are_tried_again_and_then_end_the_run(federation: Federation) -> None:
    broken = await federation.connect("a", automatic=False)

    async def fail_every_fit() -> None:
        while True:
            task = await broken.tasks.get()
            if task.kind == task_pb2.TASK_KIND_FIT:
                broken.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="no data")
            else:
                await broken.do(task)

    failing = asyncio.create_task(fail_every_fit())
    run = await federation.run(clients=1)
    failing.cancel()
    assert run.outcome is RunOutcome.FAILED
    assert sorted(run.abandoned) == [(1, 1), (1, 2), (1, 3)]
    assert "abandoned 3 times" in run.reason


async def test_two_runs_share_the_engine_and_the_clients(federation: Federation) -> None:
    await federation.connect("a")
    await federation.connect("b")
    one, two = await asyncio.gather(federation.run(run_id=1, num_rounds=4), federation.run(run_id=2, num_rounds=4))
    assert {one.outcome, two.outcome} == {RunOutcome.COMPLETED}


async def test_a_run_goes_on_after_its_last_committed_round_on_another_engine(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = federation.add_run(num_rounds=3, clients=1)
    running = asyncio.create_task(federation.engine.run(1))
    while True:  # the first round is done, and the second under way
        task = await asyncio.wait_for(agent.tasks.get(), 10)
        if task.round == 2:
            break
        await agent.do(task)
    port = federation.engine.port
    await federation.engine.stop()
    assert await running is False
    assert (run.held, run.outcome, sorted(run.models)) == (False, None, [0, 1])
    federation.store.last_events[1] = federation.sink.events[-1].seq
    await federation.start(port)
    await federation.connect("a")
    async with asyncio.timeout(20):
        await federation.engine.run(1)
    assert run.outcome is RunOutcome.COMPLETED
    assert federation.models.saved[run.models[3].key]["w"][0, 0] == 3.0
    assert [e.seq for e in federation.sink.events] == list(range(1, len(federation.sink.events) + 1))
    assert "run.resumed" in federation.sink.kinds()


async def test_an_engine_that_has_lost_its_lease_writes_nothing_more(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    run = federation.add_run(clients=1)
    running = asyncio.create_task(federation.engine.run(1))
    await agent.do(await asyncio.wait_for(agent.tasks.get(), 10))
    task = await asyncio.wait_for(agent.tasks.get(), 10)
    run.fencing += 1
    await agent.do(task)
    await asyncio.wait_for(running, 10)
    assert (run.outcome, sorted(run.models)) == (None, [0])


async def test_an_upload_that_is_under_way_when_the_lease_is_lost_gets_its_answer(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, run = await federation.connect("a", automatic=False), federation.add_run(clients=1)
    running = asyncio.create_task(federation.engine.run(1))
    await agent.do(await asyncio.wait_for(agent.tasks.get(), 10))
    task = await asyncio.wait_for(agent.tasks.get(), 10)
    monkeypatch.setattr(failpoints, "_FOLDER", str(tmp_path))
    (tmp_path / "collect.1").touch()
    uploading = asyncio.create_task(agent.do(task))
    await federation.until((tmp_path / "collect.1.reached").exists)
    run.fencing += 1
    federation.engine.nudge(1)
    await asyncio.wait_for(running, 10)
    with pytest.raises(aio.AioRpcError, match="The round was interrupted"):
        await asyncio.wait_for(uploading, 10)


async def test_what_breaks_a_run_off_is_in_the_log(federation: Federation, caplog: pytest.LogCaptureFixture) -> None:
    async def failing(run_id: int, owner: str) -> RunState | None:
        raise RuntimeError("no such column")

    federation.add_run(clients=1)
    federation.store.take_up = failing  # type: ignore[method-assign]
    assert await federation.engine.run(1) is False
    assert "Run 1 broke off" in caplog.text
    assert "no such column" in caplog.text


async def test_a_run_that_is_given_back_while_it_waits_leaves_nothing_waiting(federation: Federation) -> None:
    federation.add_run(clients=1)
    before = asyncio.all_tasks()
    running = asyncio.create_task(federation.engine.run(1))
    await federation.until(lambda: any(event.kind == "run.waiting" for event in federation.sink.events))
    await federation.engine.drain()
    await running
    await federation.until(lambda: asyncio.all_tasks() <= before)


async def test_a_run_is_driven_once(federation: Federation) -> None:
    await federation.connect("a", automatic=False)
    federation.add_run(clients=1)
    first = asyncio.create_task(federation.engine.run(1))
    await federation.until(lambda: federation.store.runs[1].held)
    assert await federation.engine.run(1) is False
    await federation.engine.drain()
    assert await first is False


async def test_a_drain_while_a_run_is_taken_up_gives_it_back_at_once(federation: Federation) -> None:
    run, reached, may_end = federation.add_run(clients=1), asyncio.Event(), asyncio.Event()
    take_up = federation.store.take_up

    async def slowly(run_id: int, owner: str) -> RunState | None:
        reached.set()
        await may_end.wait()
        return await take_up(run_id, owner)

    federation.store.take_up = slowly  # type: ignore[method-assign]
    running = asyncio.create_task(federation.engine.run(1))
    await reached.wait()
    draining = asyncio.create_task(federation.engine.drain())
    await federation.until(lambda: federation.engine._draining)
    may_end.set()
    await draining
    assert await running is False
    assert (run.fencing, run.held, run.outcome) == (1, False, None)


async def test_a_client_that_fails_its_evaluation_has_done_its_part_of_the_training(federation: Federation) -> None:
    await federation.connect("a")
    odd = await federation.connect("b", automatic=False)
    running = asyncio.create_task(federation.run())
    task = await asyncio.wait_for(odd.tasks.get(), 10)
    while task.kind != task_pb2.TASK_KIND_EVALUATE:
        await odd.do(task)
        task = await asyncio.wait_for(odd.tasks.get(), 10)
    odd.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="no validation data")
    run = await running
    assert [p.outcome for p in run.rounds[1, 1].participations] == ["completed", "completed"]
    (event,) = [e for e in federation.sink.events if e.kind == "client.not_evaluated"]
    assert (event.client_id, event.data["outcome"]) == ("b", "failed")
    assert "client.failed" not in federation.sink.kinds()


async def test_a_client_that_fails_is_asked_last_also_by_the_engine_that_takes_the_run_up(
    federation: Federation,
) -> None:
    """Each round asks two of three, the most reliable first; ids and seed are such that "b" is among the first."""
    cohort = CohortConfig(min_clients=1, max_clients=2, order="available")
    faults = FaultsConfig(quorum=1, deadline_seconds=20)
    strategy = StrategyConfig(cohort=cohort, faults=faults, evaluation=EvaluationConfig(federated=False))
    run = federation.store.add(RunSpec(1, "test", "tests", "toy", "1", SIGNATURE, strategy, seed=0, num_rounds=4))
    federation.store.last_events[1] = 0
    await federation.connect("a")
    await federation.connect("c")
    broken = await federation.connect("b", automatic=False)
    running = asyncio.create_task(federation.engine.run(1))
    while (task := await asyncio.wait_for(broken.tasks.get(), 10)).kind != task_pb2.TASK_KIND_FIT:
        await broken.do(task)
    broken.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="no data")
    async with asyncio.timeout(20):
        await running
    asked = [{p.client_id for p in run.rounds[number, 1].participations} for number in range(1, 5)]
    assert "b" in asked[task.round - 1]
    assert all("b" not in clients for clients in asked[task.round :])
    run.outcome, run.spec = None, replace(run.spec, num_rounds=5)
    await federation.engine.run(1)
    assert {p.client_id for p in run.rounds[5, 1].participations} == {"a", "c"}


def in_turn(federation: Federation, num_rounds: int) -> StoredRun:
    """One client a round."""
    cohort = CohortConfig(min_clients=1, max_clients=1, order="cyclic")
    faults = FaultsConfig(quorum=1, deadline_seconds=20, replace=False)
    strategy = StrategyConfig(cohort=cohort, faults=faults, evaluation=EvaluationConfig(federated=False))
    return federation.store.add(RunSpec(1, "test", "tests", "toy", "1", SIGNATURE, strategy, 7, num_rounds))


def turns(run: StoredRun) -> list[tuple[int, int, str]]:
    """Round, attempt and the client that was asked."""
    return [(*key, record.participations[0].client_id) for key, record in sorted(run.rounds.items()) if key[0]]


async def test_a_client_that_fails_in_its_turn_passes_it_on(federation: Federation) -> None:
    broken = await federation.connect("b", automatic=False)
    await federation.connect("a")
    await federation.connect("c")
    run = in_turn(federation, num_rounds=3)
    running = asyncio.create_task(federation.engine.run(1))
    while (task := await asyncio.wait_for(broken.tasks.get(), 10)).kind != task_pb2.TASK_KIND_FIT:
        await broken.do(task)
    broken.report(task, task_pb2.TASK_OUTCOME_FAILED, reason="no data")
    async with asyncio.timeout(20):
        await running
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert turns(run) == [(1, 1, "a"), (2, 1, "b"), (2, 2, "c"), (3, 1, "c")]


async def test_an_engine_that_is_lost_in_the_middle_of_a_turn_takes_it_from_no_client(federation: Federation) -> None:
    """So that the run comes to the model to which it comes undisturbed."""
    agents = [await federation.connect(client_id, automatic=False) for client_id in "ab"]
    run = in_turn(federation, num_rounds=2)
    running = asyncio.create_task(federation.engine.run(1))
    await agents[0].do(await asyncio.wait_for(agents[0].tasks.get(), 10))
    await asyncio.wait_for(agents[0].tasks.get(), 10)
    port = federation.engine.port
    await federation.engine.stop()
    await running
    federation.store.last_events[1] = federation.sink.events[-1].seq
    await federation.start(port)
    for client_id in "ab":
        await federation.connect(client_id)
    async with asyncio.timeout(20):
        await federation.engine.run(1)
    assert turns(run) == [(1, 1, "a"), (1, 2, "a"), (2, 1, "b")]


async def test_the_client_that_sends_a_long_step_is_flagged_and_the_others_are_not(federation: Federation) -> None:
    for client_id, step in {"a": 1.0, "b": 1.02, "c": 0.98, "d": 1.01, "e": 9.0}.items():
        await federation.connect(client_id, step=step)
    run = await federation.run(clients=5, quorum=5)
    reports = {p.client_id: p for p in run.rounds[1, 1].participations}
    assert [c for c, report in reports.items() if report.flagged] == ["e"]
    assert reports["e"].flag_reason == "its norm is 8.9 times the median"
    assert reports["a"].update_norm == pytest.approx(12**0.5)
    assert reports["e"].update_largest == pytest.approx(9)
    assert reports["e"].cosine_to_aggregate == pytest.approx(1, abs=0.01)

    (flag,) = [e for e in federation.sink.events if e.kind == "client.flagged"]
    assert (flag.client_id, flag.level, flag.round_number) == ("e", "warning", 1)
    assert flag.message == "site e is unlike the others: its norm is 8.9 times the median"
    (committed,) = [e for e in federation.sink.events if e.kind == "round.committed"]
    assert committed.data["updates"]["e"]["norm_ratio"] == pytest.approx(9 / 1.01)
    assert {c for c, update in committed.data["updates"].items() if update["flagged"]} == {"e"}
    completed = {e.client_id: e.data["update_norm"] for e in federation.sink.events if e.kind == "client.completed"}
    assert completed == {client_id: report.update_norm for client_id, report in reports.items()}


async def test_cosines_are_to_what_the_rule_made_of_the_updates(federation: Federation) -> None:
    """The mean follows the one that is far away; the median stays with the two."""
    for client_id, step in {"a": 1.0, "b": 1.1, "c": -9.0}.items():
        await federation.connect(client_id, step=step)
    cosines = {}
    for run_id, rule in ((1, Mean()), (2, Median())):
        run = federation.add_run(run_id=run_id, clients=3, quorum=3)
        run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"aggregation": rule}))
        async with asyncio.timeout(30):
            await federation.engine.run(run_id)
        reports = {p.client_id: p.cosine_to_aggregate for p in run.rounds[1, 1].participations}
        cosines[run_id] = [round(reports[c] or 0) for c in "abc"]
    assert cosines == {1: [-1, -1, 1], 2: [1, 1, -1]}


async def test_what_is_told_of_a_step_beyond_float32_is_valid_json(federation: Federation) -> None:
    for client_id, step in {"a": 1.0, "b": 1.0, "c": -3.3e38}.items():
        await federation.connect(client_id, step=step)
    await federation.run(clients=3, quorum=3, evaluate=False)
    for event in federation.sink.events:
        json.dumps(dict(event.data), allow_nan=False)


async def test_metrics_that_are_no_numbers_or_enormous_end_no_run(federation: Federation) -> None:
    for client_id, largest in {"a": 1e308, "b": 1e308, "c": -1e308}.items():
        agent = await federation.connect(client_id)
        agent.metrics = {"auc": math.nan, "largest": largest}
    run = await federation.run(clients=3, quorum=3)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    reports = {p.client_id: p.metrics for p in run.rounds[1, 1].participations}
    assert reports["c"] == {"auc": "nan", "largest": -1e308, "loss": 0.1}
    means = {m.name: m.value for m in run.metrics(1) if m.source == "fit"}
    assert means == {"largest": pytest.approx(1e308 / 3), "loss": 0.1}
    for event in federation.sink.events:
        json.dumps(dict(event.data), allow_nan=False)


async def test_clipping_does_not_hide_what_a_client_sent(federation: Federation) -> None:
    await federation.connect("a", step=4.0)
    run = federation.add_run(clients=1)
    clip = run.spec.strategy.update.model_copy(update={"clip_norm": 0.5})
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"update": clip}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    (report,) = run.rounds[1, 1].participations
    assert report.update_norm == pytest.approx(4 * 12**0.5)
    assert np.linalg.norm(federation.models.saved[run.models[1].key]["w"]) == pytest.approx(0.5)
