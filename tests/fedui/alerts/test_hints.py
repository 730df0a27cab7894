"""What the engine hints at is looked into at once, and no more often than is of use."""

from __future__ import annotations

import time
from queue import Queue
from typing import Any

import pytest

from fedui.accounts.models import User
from fedui.alerts import hints
from fedui.alerts.tasks import evaluate_federation
from fedui.federations.models import Federation
from fedui.runs.models import Event
from tests.support.domain import a_run

pytestmark = pytest.mark.django_db
PAUSE = 0.2


def test_a_quick_run_has_rules_looked_at_first_at_once_then_once_a_while(
    federation: Federation, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: Queue[tuple[str, list[str], float]] = Queue()

    def apply_async(arguments: tuple[str, list[str]], **options: Any) -> None:
        sent.put((*arguments, time.monotonic()))

    monkeypatch.setattr(evaluate_federation, "apply_async", apply_async)
    monkeypatch.setattr(hints, "PAUSE_SECONDS", PAUSE)
    run = a_run(federation, owner)
    committed, finished = [Event(run=run, kind="round.committed")], [Event(run=run, kind="run.finished")]

    hints.events_stored(committed)
    told, kinds, first = sent.get(timeout=10)
    for events in (*[committed] * 20, finished, committed):
        hints.events_stored(events)
    _, kinds_at_the_end, second = sent.get(timeout=10)
    hints.events_stored(committed)
    *_, third = sent.get(timeout=10)

    assert told == str(federation.pk)
    assert kinds == ["metric_threshold", "quorum_missed", "update_flagged"]
    assert {*kinds, "run_finished", "run_failed"} <= set(kinds_at_the_end)
    assert second - first >= PAUSE
    assert third - second >= PAUSE
    assert sent.empty()
