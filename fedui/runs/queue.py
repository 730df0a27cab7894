"""Which runs may begin: by priority, then in the order in which they were queued, as many at once as the limits allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from fedui.runs.models import DRIVEN, Run, RunRules, RunStatus


def next_in_line(now: datetime, *, lock: bool = False) -> list[int]:
    """Ids of the queued runs that may begin now.

    A run that is at its federation's limit lets others pass; one that the installation has no place for holds all up. With
    `lock`, in a transaction, of several who look at once each sees what the others have decided.
    """
    active = Run.objects.active().order_by("pk")
    rows = list(active.select_for_update() if lock else active)
    limits = limits_of({run.federation_id for run in rows})
    taken = Counter(run.federation_id for run in rows if run.status in DRIVEN)
    places = settings.MAX_RUNS - taken.total() if settings.MAX_RUNS else len(rows)
    admitted: list[int] = []
    for run in _waiting(rows, now):
        if len(admitted) >= places:
            break
        if not (limit := limits[run.federation_id]) or taken[run.federation_id] < limit:
            admitted.append(run.pk)
            taken[run.federation_id] += 1
    return admitted


def lost_runs() -> list[int]:
    """Ids of the runs that are under way, and that no aggregator holds."""
    return list(Run.objects.without_owner(timezone.now()).filter(status__in=DRIVEN).values_list("pk", flat=True))


def ahead(now: datetime) -> dict[int, int]:
    """Of each queued run whose time has come, how many others come before it."""
    return {run.pk: place for place, run in enumerate(_waiting(Run.objects.active(), now))}


def limits_of(federation_ids: Collection[UUID]) -> dict[UUID, int]:
    """How many runs of each federation may run at once; 0: no limit of its own."""
    own = dict(RunRules.objects.filter(federation__in=federation_ids).values_list("federation", "max_runs"))
    return {pk: settings.MAX_RUNS_PER_FEDERATION if (limit := own.get(pk)) is None else limit for pk in federation_ids}


def _waiting(runs: Iterable[Run], now: datetime) -> Sequence[Run]:
    due = [r for r in runs if r.status == RunStatus.QUEUED and (r.start_at is None or r.start_at <= now)]
    return sorted(due, key=lambda run: (-run.priority, run.queued_at, run.pk))
