"""What a reader should know of a run's state, derived in this one place for pages, API and the live header.

A row that says "running" may mean that clients are missing, that nothing has been heard for a while, or that the worker is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Avg, DurationField, ExpressionWrapper, F, OuterRef, Subquery
from django.utils import timezone

from fedui.runs import queue
from fedui.runs.models import DRIVEN, Event, Round, RoundStatus, Run, RunStatus
from fedui.web.figures import duration

STALLED_AFTER = timedelta(seconds=90)
"""Without a word of its round, unless the run's rounds take longer than half of that without one."""


@dataclass(frozen=True, slots=True)
class Condition:
    kind: str
    """One of the statuses, or "scheduled", "waiting", "stalled", "recovering"."""
    label: str
    detail: str = ""

    @property
    def text(self) -> str:
        """ "Waiting (3 of 5 clients)"."""
        return f"{self.label} ({self.detail})" if self.detail else self.label


@dataclass(frozen=True, slots=True)
class Signs:
    """What has been heard of a run that is driven."""

    heard_at: datetime | None = None
    kind: str = ""
    """Of the latest event that is about the run or a round, not about one client."""
    data: dict[str, Any] | None = None
    pace: timedelta = timedelta(0)
    """Mean time of its committed rounds."""


def condition_of(run: Run, now: datetime | None = None) -> Condition:
    return conditions([run], now)[run.pk]


def prefill(runs: Iterable[Run]) -> None:
    """Find out once for all of them; `Run.condition` says it."""
    found = list(runs)
    known = conditions(found)
    for run in found:
        run.__dict__["known_condition"] = known[run.pk]


def conditions(runs: Sequence[Run], now: datetime | None = None) -> dict[int, Condition]:
    now = now or timezone.now()
    driven = [run for run in runs if run.status in DRIVEN]
    signs = _signs(driven) if driven else {}
    ahead = queue.ahead(now) if any(run.status == RunStatus.QUEUED for run in runs) else {}
    return {run.pk: _condition(run, signs.get(run.pk, Signs()), ahead.get(run.pk, 0), now) for run in runs}


def _signs(runs: Sequence[Run]) -> dict[int, Signs]:
    events = Event.objects.filter(run=OuterRef("pk")).order_by("-seq")
    telling = events.exclude(kind__startswith="client.")
    rounds = Round.objects.filter(run=OuterRef("pk"), status=RoundStatus.COMMITTED).order_by()
    took = ExpressionWrapper(F("committed_at") - F("started_at"), output_field=DurationField())
    rows = Run.objects.filter(pk__in=[run.pk for run in runs]).values_list(
        "pk",
        Subquery(events.values("at")[:1]),
        Subquery(telling.values("kind")[:1]),
        Subquery(telling.values("data")[:1]),
        Subquery(rounds.values("run").annotate(mean=Avg(took)).values("mean")),
    )
    return {pk: Signs(at, kind or "", data, pace or timedelta(0)) for pk, at, kind, data, pace in rows}


def _condition(run: Run, signs: Signs, ahead: int, now: datetime) -> Condition:
    status = RunStatus(run.status)
    if status == RunStatus.QUEUED:
        return _queued(run, ahead, now)
    if status in DRIVEN and (run.lease_expires_at is None or run.lease_expires_at <= now):
        return _recovering(run)
    if status == RunStatus.RUNNING:
        return _running(signs, now)
    if status == RunStatus.PAUSING:
        return Condition(status, status.label, "now" if run.pause_at_once else f"after round {run.rounds_done + 1}")
    if status == RunStatus.PAUSED:
        return Condition(status, status.label, f"after round {run.rounds_done}" if run.rounds_done else "")
    return Condition(status, status.label)


def _queued(run: Run, ahead: int, now: datetime) -> Condition:
    if run.start_at and run.start_at > now:
        what = "retry" if run.retries else "start"
        return Condition("scheduled", "Scheduled", f"{what} at {run.start_at:%-d %b %Y, %H:%M} UTC")
    return Condition("queued", "Queued", f"{ahead} ahead" if ahead else "next")


def _recovering(run: Run) -> Condition:
    """Nobody holds its lease; a worker that ended in good order has given it back."""
    lost = "worker lost" if run.lease_expires_at else "handed over"
    return Condition("recovering", "Recovering", f"{lost}, round {run.rounds_done + 1} restarts")


def _running(signs: Signs, now: datetime) -> Condition:
    if signs.kind == "run.waiting" and signs.data:
        return Condition("waiting", "Waiting", f"{signs.data['have']} of {signs.data['need']} clients")
    silence = now - signs.heard_at if signs.heard_at else timedelta(0)
    if silence >= max(STALLED_AFTER, 2 * signs.pace):
        return Condition("stalled", "Stalled", f"no progress for {duration(round(silence.total_seconds()))}")
    return Condition(RunStatus.RUNNING, RunStatus.RUNNING.label)
