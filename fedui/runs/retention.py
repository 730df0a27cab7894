"""What is kept of runs, and for how long: by settings of the installation, and of each federation where it has its own.

Never removed is what something refers to: the last model of any run, with which it may go on, a model that another run began with,
and one that was promoted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from aggregator.checkpoints import files_of, model_of
from aggregator.files import Files, StoredFile
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Federation
from fedui.runs.models import (
    ENDED,
    MOST_DAYS,
    Event,
    KeepCheckpoints,
    Metric,
    MetricSource,
    ModelVersion,
    Run,
    RunRules,
)

PROGRESS = ("client.phase", "client.progress")
"""Kinds of events that say how far clients are: most of all there are, and of little use when the run is over."""
ORPHAN_AGE = timedelta(hours=1)
BATCH = 5_000

logger = logging.getLogger(__name__)

_OURS = re.compile(r"run-\d+/\.?round-\d+[^/]*")


class ModelGone(DomainError):
    """A model whose file was removed on purpose."""

    code = ErrorCode.GONE

    def __init__(self, model: ModelVersion) -> None:
        assert model.removed_at is not None  # else it is there
        super().__init__(
            f"{model} was removed by retention on {model.removed_at:%-d %b %Y}.",
            hint="Its figures and its SHA-256 are kept. The run's page shows which models there are.",
        )


@dataclass(frozen=True, slots=True)
class Policy:
    checkpoints: KeepCheckpoints
    every: int
    """With `KeepCheckpoints.EVERY`: rounds that are multiples of it are kept."""
    progress_days: int
    """After the run's end; 0: for ever."""
    log_days: int


@dataclass(slots=True)
class Removal:
    """What goes, or would go."""

    models: int = 0
    model_bytes: int = 0
    progress_events: int = 0
    log_events: int = 0
    orphans: int = 0
    orphan_bytes: int = 0

    def __iadd__(self, other: Removal) -> Removal:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)


def policy_of(federation: Federation) -> Policy:
    rules = RunRules.objects.filter(federation=federation).first() or RunRules()
    kept, every = settings.KEEP_CHECKPOINTS
    if rules.checkpoints:
        kept, every = rules.checkpoints, rules.checkpoints_every or 1
    progress = settings.KEEP_PROGRESS_DAYS if rules.progress_days is None else rules.progress_days
    log = settings.KEEP_LOG_DAYS if rules.log_days is None else rules.log_days
    return Policy(KeepCheckpoints(kept), every, progress, log)


def removable_models(run: Run, policy: Policy) -> QuerySet[ModelVersion]:
    """Those of the run that the policy doesn't keep and nothing refers to."""
    there = run.models.filter(removed_at=None)
    if policy.checkpoints == KeepCheckpoints.ALL:
        return there.none()
    last = there.aggregate(last=Max("round_number"))["last"]
    kept = {last, best_round(run)}
    if policy.checkpoints == KeepCheckpoints.EVERY:
        kept |= {n for n in there.values_list("round_number", flat=True) if n % policy.every == 0}
    return there.exclude(round_number__in=kept - {None}).filter(forks=None, registrations=None)


def best_round(run: Run) -> int | None:
    """By the metric that the strategy's early stop looks at, or else by the most trusted loss; None if nothing was measured."""
    stopping = run.strategy_version.parsed.stopping
    candidates = [
        (stopping.source, stopping.metric, stopping.better),
        *(
            (source.value, "loss", "lower")
            for source in (MetricSource.SERVER, MetricSource.FEDERATED, MetricSource.FIT)
        ),
    ]
    there = run.models.filter(removed_at=None).values("round_number")
    for source, name, better in candidates:
        measured = Metric.objects.filter(run=run, source=source, name=name, round_number__in=there)
        if best := measured.order_by("-value" if better == "higher" else "value", "round_number").first():
            return best.round_number
    return None


def apply_policy(federation: Federation, files: Files, now: datetime, *, dry_run: bool = False) -> Removal:
    """Remove what the federation's policy doesn't keep; with `dry_run`, only say what that would be."""
    policy, removal = policy_of(federation), Removal()
    for run in federation.runs.select_related("strategy_version"):
        removal += _remove_models(run, policy, files, now, dry_run=dry_run)
    removal.log_events = _remove_events(_logs(federation, policy, now), dry_run=dry_run)
    removal.progress_events = _remove_events(_progress(federation, policy, now), dry_run=dry_run)
    return removal


def _remove_models(run: Run, policy: Policy, files: Files, now: datetime, *, dry_run: bool) -> Removal:
    removal = Removal()
    for model in removable_models(run, policy):
        if dry_run or _give_up(model.pk, now):
            removal.models += 1
            removal.model_bytes += model.size
            for key in () if dry_run else files_of(model.key):
                files.delete(key)
    return removal


@transaction.atomic
def _give_up(model_pk: int, now: datetime) -> bool:
    """Mark the model as removed before its files are: what is left after a crash is an orphan. False if somebody referred to it first."""
    model = ModelVersion.objects.select_for_update().get(pk=model_pk)
    if model.forks.exists() or model.registrations.exists():
        return False
    model.removed_at = now
    model.save(update_fields=["removed_at"])
    return True


def _ended_before(federation: Federation, days: int, now: datetime) -> QuerySet[Run]:
    ended = federation.runs.filter(status__in=ENDED)
    return ended.filter(ended_at__lt=now - timedelta(days=days)) if 0 < days <= MOST_DAYS else ended.none()


def _progress(federation: Federation, policy: Policy, now: datetime) -> QuerySet[Event]:
    runs = _ended_before(federation, policy.progress_days, now)
    return Event.objects.filter(run__in=runs, kind__in=PROGRESS)


def _logs(federation: Federation, policy: Policy, now: datetime) -> QuerySet[Event]:
    """All events but the last of each run, whose number the run would go on from."""
    runs = _ended_before(federation, policy.log_days, now)
    last = Event.objects.filter(run__in=runs).order_by().values("run").annotate(last=Max("pk")).values("last")
    return Event.objects.filter(run__in=runs).exclude(pk__in=last)


def _remove_events(events: QuerySet[Event], *, dry_run: bool) -> int:
    """In batches, so that no transaction holds others up."""
    if dry_run:
        return events.count()
    removed = 0
    while batch := list(events.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        removed += Event.objects.filter(pk__in=batch).delete()[0]
    return removed


def remove_orphans(files: Files, now: datetime, *, dry_run: bool = False) -> Removal:
    """Files that no model refers to: what a crash has left between checkpoint and commit, or in the middle of a write."""
    removal = Removal()
    for file in list(_orphans(files, now)):
        removal.orphans += 1
        removal.orphan_bytes += file.size
        if not dry_run:
            files.delete(file.key)
    return removal


def _orphans(files: Files, now: datetime) -> Iterator[StoredFile]:
    known = set(ModelVersion.objects.filter(removed_at=None).values_list("key", flat=True))
    ahead: Mapping[int, int] = dict(Run.objects.unfinished().values_list("pk", "rounds_done"))
    for file in files.listing():
        if not _OURS.fullmatch(file.key):
            continue  # a bucket may have other tenants
        if (
            file.modified_at < now - ORPHAN_AGE
            and model_of(file.key) not in known
            and not _may_be_committed(file, ahead)
        ):
            yield file


def _may_be_committed(file: StoredFile, rounds_done: Mapping[int, int]) -> bool:
    """An engine may have written it and wait for the database, for however long. Temporary files are never committed."""
    folder, _, name = file.key.rpartition("/")
    run, number = folder.removeprefix("run-"), name.removeprefix("round-").partition("-")[0]
    if not (run.isdecimal() and number.isdecimal() and int(run) in rounds_done):
        return False
    return int(number) > rounds_done[int(run)] or int(number) == 0 == rounds_done[int(run)]


def apply_everywhere(files: Files, *, dry_run: bool = False) -> dict[str, Removal]:
    """By federation; what belongs to none is under the empty name."""
    now, removed = timezone.now(), {}
    for federation in Federation.objects.all():
        try:
            removed[federation.slug] = apply_policy(federation, files, now, dry_run=dry_run)
        except Exception:  # the others' disks fill up meanwhile
            logger.exception("Retention has failed", extra={"federation": federation.slug})
    return removed | {"": remove_orphans(files, now, dry_run=dry_run)}
