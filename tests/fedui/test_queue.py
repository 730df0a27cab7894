"""Which runs begin, and what is said of runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django import Settings

from aggregator.ports import Ending, RunOutcome
from fedui.accounts.models import User
from fedui.federations.models import Federation
from fedui.runs import queue
from fedui.runs.adapters import FIRST_RETRY, _finish, _take_up
from fedui.runs.condition import condition_of, prefill
from fedui.runs.models import Event, Priority, Round, RoundStatus, Run, RunRules, RunStatus
from fedui.runs.tasks import dispatch_ownerless, host_run
from tests.support.domain import a_federation, a_run

S = RunStatus
MakeRun = Callable[..., Run]


@pytest.fixture
def now() -> datetime:
    return timezone.now()


@pytest.fixture
def make(federation: Federation, owner: User) -> MakeRun:
    def make(in_federation: Federation = federation, **fields: Any) -> Run:
        run = a_run(in_federation, owner)
        Run.objects.filter(pk=run.pk).update(**fields)
        return Run.objects.get(pk=run.pk)

    return make


def test_runs_begin_by_priority_then_in_order_as_far_as_there_are_places(
    make: MakeRun, settings: Settings, now: datetime
) -> None:
    settings.MAX_RUNS = 3
    make(status=S.STOPPING)
    make(status=S.PAUSED)
    first, second = make(), make()
    high = make(priority=Priority.HIGH)
    make(start_at=now + timedelta(minutes=1), priority=Priority.HIGH)
    assert queue.next_in_line(now) == [high.pk, first.pk]
    assert queue.ahead(now) == {high.pk: 0, first.pk: 1, second.pk: 2}
    settings.MAX_RUNS = 0
    assert queue.next_in_line(now) == [high.pk, first.pk, second.pk]


def test_a_federation_at_its_limit_lets_others_pass(
    make: MakeRun, federation: Federation, owner: User, settings: Settings, now: datetime
) -> None:
    other = a_federation("lungs", owner)
    settings.MAX_RUNS_PER_FEDERATION = 1
    RunRules.objects.create(federation=federation, max_runs=2)
    runs = [make(), make(), make(), make(other), make(other)]
    assert queue.next_in_line(now) == [runs[0].pk, runs[1].pk, runs[3].pk]


def test_who_is_not_next_is_not_taken_up(make: MakeRun, settings: Settings) -> None:
    settings.MAX_RUNS = 1
    first, second = make(), make()
    assert _take_up(second.pk, "engine") is None
    state = _take_up(first.pk, "engine")
    assert state
    assert _take_up(second.pk, "engine") is None
    _finish(state.lease, RunOutcome.COMPLETED, "", None)
    assert _take_up(second.pk, "engine")


def test_lost_runs_and_those_that_are_next_are_sent_to_the_workers(
    make: MakeRun, settings: Settings, monkeypatch: pytest.MonkeyPatch, now: datetime
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(host_run, "apply_async", lambda args, expires: sent.append(*args))
    settings.MAX_RUNS = 3
    lost = make(status=S.RUNNING, lease_expires_at=now - timedelta(seconds=1))
    make(status=S.RUNNING, lease_expires_at=now + timedelta(seconds=15))
    queued = make()
    make()
    assert dispatch_ownerless() == 2
    assert sent == [lost.pk, queued.pk]


def test_a_failed_run_is_tried_again_as_often_as_was_said(make: MakeRun) -> None:
    run = make(max_retries=2)
    for retry in range(2):
        Run.objects.update(start_at=None)
        state = _take_up(run.pk, "engine")
        assert state
        assert _finish(state.lease, RunOutcome.FAILED, "no quorum", None)[0] is Ending.RETRIED
        run.refresh_from_db()
        assert (run.status, run.retries, run.reason) == (S.QUEUED, retry + 1, f"Attempt {retry + 1} failed: no quorum")
        assert run.start_at
        assert run.start_at - timezone.now() > FIRST_RETRY * 2**retry - timedelta(seconds=5)
        assert condition_of(run).label == "Scheduled"
        assert _take_up(run.pk, "engine") is None
    Run.objects.update(start_at=None)
    state = _take_up(run.pk, "engine")
    assert state
    assert _finish(state.lease, RunOutcome.FAILED, "no quorum", None)[0] is Ending.ENDED
    run.refresh_from_db()
    assert run.status == S.FAILED


def an_event(run: Run, at: datetime, kind: str, **data: Any) -> None:
    seq = run.events.count() + 1
    Event.objects.create(run=run, seq=seq, at=at, kind=kind, level="info", message=kind, data=data)


def test_conditions_of_a_run_that_is_driven(make: MakeRun, now: datetime) -> None:
    run = make(status=S.RUNNING, rounds_done=6, lease_expires_at=now + timedelta(seconds=15))
    an_event(run, now, "round.started")
    an_event(run, now, "client.progress")
    assert condition_of(run, now).text == "Running"
    assert condition_of(run, now + timedelta(seconds=14)).text == "Running"

    an_event(run, now, "run.waiting", have=3, need=5)
    an_event(run, now, "client.phase")
    assert condition_of(run, now).text == "Waiting (3 of 5 clients)"

    an_event(run, now - timedelta(seconds=95), "round.started")
    assert condition_of(run, now).text == "Stalled (no progress for 1 min 35 s)"

    start = now - timedelta(minutes=30)
    Round.objects.create(
        run=run, number=6, status=RoundStatus.COMMITTED, started_at=start, committed_at=start + timedelta(minutes=5)
    )
    assert condition_of(run, now).text == "Running", "rounds of this run take that long"

    run.lease_expires_at = now - timedelta(seconds=1)
    assert condition_of(run, now).text == "Recovering (worker lost, round 7 restarts)"
    run.lease_expires_at = None
    assert condition_of(run, now).text == "Recovering (handed over, round 7 restarts)"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"status": S.QUEUED}, "Queued (next)"),
        ({"status": S.QUEUED, "priority": -1}, "Queued (1 ahead)"),
        ({"status": S.PAUSED, "rounds_done": 4}, "Paused (after round 4)"),
        ({"status": S.PAUSED}, "Paused"),
        ({"status": S.COMPLETED}, "Completed"),
        ({"status": S.PAUSING, "rounds_done": 4, "lease_expires_at": datetime.max}, "Pausing (after round 5)"),
        ({"status": S.PAUSING, "pause_at_once": True, "lease_expires_at": datetime.max}, "Pausing (now)"),
        ({"status": S.STOPPING, "lease_expires_at": datetime.max}, "Stopping"),
    ],
)
def test_conditions_of_others(make: MakeRun, fields: dict[str, Any], text: str, now: datetime) -> None:
    if "lease_expires_at" in fields:
        fields["lease_expires_at"] = now + timedelta(seconds=15)
    run = make(**fields)
    make(queued_at=now + timedelta(minutes=1))
    assert condition_of(run).text == text


def test_many_runs_take_no_more_queries_than_one(
    make: MakeRun, django_assert_max_num_queries: Any, now: datetime
) -> None:
    runs = [make(status=status, lease_expires_at=now) for status in (S.QUEUED, S.RUNNING, S.RUNNING, S.PAUSED)]
    with django_assert_max_num_queries(2):
        prefill(runs)
        assert [run.condition.kind for run in runs] == ["queued", "recovering", "recovering", "paused"]
