"""What the database's adapters keep of a run: rows that pages and API read."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError

from aggregator.core.round import Outcome, ParticipationReport
from aggregator.ports import Ending, Event, EventsRefused, LeaseLost, Level, MetricRecord, RoundRecord, RunOutcome
from fedui.runs.adapters import DatabaseEventSink
from fedui.runs.models import Event as EventRow
from fedui.runs.models import Metric, Participation, Round, Run
from tests.contracts.test_run_store import NOW, Harness, in_database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def harness(transactional_db: None) -> Harness:
    return await sync_to_async(in_database)()


async def test_a_round_is_kept_with_all_that_its_clients_did(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    a, b = harness.clients
    await harness.store.begin_round(
        lease, RoundRecord(1, 1, NOW, participations=[ParticipationReport(c) for c in (a, b)])
    )
    reports = [
        ParticipationReport(
            a,
            Outcome.COMPLETED,
            num_examples=30,
            metrics={"loss": 0.5, "raw": b"\x01"},
            train_seconds=1.5,
            bytes_up=64,
            update_norm=2.0,
            update_largest=0.5,
            update_sketch=b"\x00sketch",
            norm_ratio=1.8,
            cosine_to_aggregate=-0.1,
            z_norm=4.5,
            z_cosine=-1.0,
            flagged=True,
            flag_reason="its norm is 1.8 times the median",
        ),
        ParticipationReport(b, Outcome.LATE, "No update within 60 s."),
    ]
    fit = [MetricRecord("fit", "loss", 0.5, 30)]
    committed = RoundRecord(1, 1, NOW, NOW, NOW, None, reports, fit)
    await harness.store.commit_round(lease, committed, harness.model(1))
    reports[0].evaluation_loss, reports[0].evaluation_num_examples = 0.25, 10
    evaluated = [*fit, MetricRecord("server", "accuracy", 0.9, 100)]
    await harness.store.record_evaluation(lease, RoundRecord(1, 1, NOW, NOW, NOW, NOW, reports, evaluated))

    run = await Run.objects.aget(pk=harness.run_id)
    assert run.rounds_done == 1
    assert await Round.objects.values_list("status", "reason").aget(run=run) == ("committed", "")
    rows = [p async for p in Participation.objects.order_by("client__name")]
    assert [(p.outcome, p.reason) for p in rows] == [("completed", ""), ("late", "No update within 60 s.")]
    assert (rows[0].metrics, rows[0].train_seconds, rows[0].bytes_up) == ({"loss": 0.5, "raw": "01"}, 1.5, 64)
    assert (rows[0].evaluation_loss, rows[0].evaluation_num_examples) == (0.25, 10)
    assert (rows[0].update_norm, rows[0].update_largest, rows[0].norm_ratio) == (2.0, 0.5, 1.8)
    assert (rows[0].cosine_to_aggregate, rows[0].z_norm, rows[0].z_cosine) == (-0.1, 4.5, -1.0)
    assert (rows[0].flagged, rows[0].flag_reason) == (True, "its norm is 1.8 times the median")
    assert (rows[1].update_norm, rows[1].z_norm, rows[1].flagged, rows[1].flag_reason) == (None, None, False, "")
    sketches = Participation.objects.order_by("client__name").values_list("update_sketch", flat=True)
    assert [bytes(sketch) async for sketch in sketches] == [b"\x00sketch", b""]
    metrics = {(m.source, m.name): m.value async for m in Metric.objects.filter(run=run)}
    assert metrics == {("fit", "loss"): 0.5, ("server", "accuracy"): 0.9}
    assert [m.parent is not None async for m in run.models.select_related("parent")] == [True, False]


async def test_clients_may_join_a_round_that_has_begun_and_others_turn_out_to_be_no_part_of_it(
    harness: Harness,
) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    trains_on, joins = harness.clients
    await harness.store.begin_round(lease, RoundRecord(1, 1, NOW, participations=[ParticipationReport(trains_on)]))
    reports = [ParticipationReport(joins, Outcome.COMPLETED, num_examples=30)]
    await harness.store.commit_round(lease, RoundRecord(1, 1, NOW, NOW, NOW, None, reports), harness.model(1))
    await harness.store.record_evaluation(lease, RoundRecord(1, 1, NOW, NOW, NOW, NOW, reports))
    rows = [(str(p.client_id), p.outcome, p.num_examples) async for p in Participation.objects.all()]
    assert rows == [(joins, "completed", 30)]


async def test_what_a_lost_aggregator_left_open_is_closed(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    open_round = RoundRecord(1, 1, NOW, participations=[ParticipationReport(c) for c in harness.clients])
    await harness.store.begin_round(lease, open_round)
    await harness.expire()
    await harness.take_up()
    assert (await Round.objects.aget()).status == "abandoned"
    assert {p.outcome async for p in Participation.objects.all()} == {"cancelled"}


async def test_a_commit_that_fails_leaves_nothing_behind(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    await harness.store.begin_round(lease, harness.record(1))
    measured = harness.record(1, metrics=[MetricRecord("fit", "loss", 0.5, 1)])
    with pytest.raises(IntegrityError):
        await harness.store.commit_round(lease, measured, replace(harness.model(1), size=-1))
    assert (await Round.objects.aget()).status == "running"
    assert not await Metric.objects.aexists()
    await harness.store.commit_round(lease, harness.record(1), harness.model(1))


async def test_what_is_written_again_because_the_answer_was_lost_counts_once(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    measured = harness.record(1, metrics=[MetricRecord("fit", "loss", 0.5, 1)])
    for _ in range(2):
        await harness.store.begin_round(lease, harness.record(1))
    for _ in range(2):
        await harness.store.commit_round(lease, measured, harness.model(1))
    for _ in range(2):
        await harness.store.record_evaluation(lease, measured)
    assert (await Round.objects.acount(), await Metric.objects.acount()) == (1, 1)
    assert await Participation.objects.acount() == len(measured.participations)
    for _ in range(2):
        assert await harness.store.finish(lease, RunOutcome.COMPLETED, "done") is Ending.ENDED


async def test_events_are_stored_under_the_lease_and_numbered_once(harness: Harness) -> None:
    sink, lease = DatabaseEventSink(), (await harness.take_up()).lease

    def event(seq: int) -> Event:
        return Event(harness.run_id, seq, datetime.now(UTC), "x", Level.INFO, "text", 1, harness.clients[0], {"k": 1})

    await sink.write(lease, [event(1), event(2)])
    await sink.write(lease, [event(2), event(3)])  # the answer to the first was lost
    assert [e.seq async for e in EventRow.objects.all()] == [1, 2, 3]
    await harness.store.finish(lease, RunOutcome.COMPLETED, "done")
    await sink.write(lease, [event(4)])  # the last word comes after the end
    await Run.objects.filter(pk=harness.run_id).aupdate(lease_fencing=99)
    with pytest.raises(LeaseLost):
        await sink.write(lease, [event(5)])


@pytest.mark.parametrize("data", [{"mean": math.inf}, {"raw": b"x"}])
async def test_events_that_no_json_can_say_are_refused(harness: Harness, data: dict[str, object]) -> None:
    sink, lease = DatabaseEventSink(), (await harness.take_up()).lease
    with pytest.raises(EventsRefused):
        await sink.write(lease, [Event(harness.run_id, 1, NOW, "x", Level.INFO, "text", data=data)])
    await sink.write(lease, [Event(harness.run_id, 1, NOW, "x", Level.INFO, "text")])


async def test_an_update_of_an_abandoned_round_keeps_its_norm(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    reports = [ParticipationReport(c, Outcome.COMPLETED, update_norm=2.0) for c in harness.clients]
    await harness.store.begin_round(lease, harness.record(1))
    await harness.store.abandon_round(lease, RoundRecord(1, 1, NOW, participations=reports), "no quorum")
    assert {p.update_norm async for p in Participation.objects.all()} == {2.0}
