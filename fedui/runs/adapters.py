"""The engine's run store and event sink over the database."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

from channels.db import database_sync_to_async
from django.db import DataError, IntegrityError, transaction
from django.db.models import Case, Count, F, Max, Q, TextField, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from aggregator.core.cohort import Attendance
from aggregator.core.history import Pace
from aggregator.core.modes import Buffered
from aggregator.core.round import Outcome as EngineOutcome
from aggregator.core.round import ParticipationReport
from aggregator.ports import (
    ClientIdentity,
    Directive,
    Ending,
    Event,
    EventsRefused,
    Lease,
    LeaseLost,
    MetricRecord,
    ModelRecord,
    Origin,
    RoundRecord,
    RunOutcome,
    RunSpec,
    RunState,
)
from fedui.alerts import hints
from fedui.audit.origin import ENGINE
from fedui.audit.services import record as record_act
from fedui.metrics import engine as counts
from fedui.patience import patiently
from fedui.runs import digests, live, queue, weights
from fedui.runs.models import (
    DRIVEN,
    Metric,
    MetricSource,
    ModelVersion,
    Outcome,
    Participation,
    Round,
    RoundStatus,
    Run,
    RunStatus,
)
from fedui.runs.models import Event as EventRow
from fedui.runs.serialize import event_payload
from fedui.scalars import scalars_to_json

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=10)
"""A lease is renewed every 2.5 s; three missed renewals and another worker takes the run up."""

FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=30), timedelta(hours=1)
"""From a failure to the next attempt."""

REPORT_FIELDS = [
    "outcome", "reason", "download_seconds", "train_seconds", "upload_seconds", "bytes_down", "bytes_up", "num_examples",
    "metrics", "update_sha256", "evaluation_loss", "evaluation_num_examples", "evaluation_metrics",
    "update_norm", "update_largest", "staleness", "steps_done", "steps_planned",
]  # fmt: skip
COMPARISON_FIELDS = [
    "update_sketch",
    "norm_ratio",
    "cosine_to_aggregate",
    "z_norm",
    "z_cosine",
    "flagged",
    "flag_reason",
]
"""What a commit alone adds: sketches are too long to be written again with each later report."""


MOST_RUN_ID = 2**63 - 1

KEPT_PACES = 10_000
"""Of so many parts, the latest, clients' usual times are learned when a run is taken up."""


class DatabaseRunStore:
    """Implements `aggregator.ports.RunStore`. Every write checks the lease's fencing number in its own transaction.

    While the database is away, what the engine has to write waits. Each write may be done twice, for an answer may have been lost.
    """

    async def take_up(self, run_id: int, owner: str) -> RunState | None:
        state = await database_sync_to_async(_take_up)(run_id, owner)
        if state:
            await live.runs_changed(state.spec.federation_id)
        return state

    async def renew(self, lease: Lease) -> Directive:
        return await database_sync_to_async(_renew)(lease)

    async def release(self, lease: Lease) -> None:
        await database_sync_to_async(_release)(lease)

    async def weights(self, lease: Lease, round_number: int) -> Mapping[str, int]:
        return await patiently(_weights, lease, round_number)

    async def begin_round(self, lease: Lease, record: RoundRecord) -> None:
        await patiently(_begin_round, lease, record)

    async def commit_round(self, lease: Lease, record: RoundRecord, model: ModelRecord) -> None:
        await patiently(_commit_round, lease, record, model)
        counts.round_committed(record)

    async def abandon_round(self, lease: Lease, record: RoundRecord, reason: str) -> None:
        await patiently(_abandon_round, lease, record, reason)
        counts.round_abandoned(record)

    async def record_evaluation(self, lease: Lease, record: RoundRecord) -> None:
        await patiently(_record_evaluation, lease, record)
        counts.round_evaluated(record)

    async def pause(self, lease: Lease, reason: str) -> None:
        await live.runs_changed(await patiently(_pause, lease, reason))

    async def finish(self, lease: Lease, outcome: RunOutcome, reason: str, all_rounds: int | None = None) -> Ending:
        ending, federation_id = await patiently(_finish, lease, outcome, reason, all_rounds)
        await live.runs_changed(federation_id)
        return ending

    async def settled(self, client: ClientIdentity, run_ids: Collection[str]) -> Mapping[str, int | None]:
        return await database_sync_to_async(_settled)(client, run_ids)


class DatabaseEventSink:
    """Implements `aggregator.ports.EventSink`: the database first, then the run's group of browsers."""

    async def write(self, lease: Lease, events: Sequence[Event]) -> None:
        try:
            rows = await database_sync_to_async(_store_events)(lease, events)
        except (DataError, IntegrityError, TypeError, ValueError) as error:  # a database that is away raises others
            raise EventsRefused(f"{type(error).__name__}: {error}") from error
        counts.events_stored(events)
        hints.events_stored(rows)
        await live.publish_events(lease.run_id, [event_payload(row) for row in rows])


def _fence(lease: Lease) -> Run:
    """The run, locked for the rest of the transaction, if the lease is the newest."""
    run = Run.objects.select_for_update().filter(pk=lease.run_id, lease_fencing=lease.fencing).first()
    if run is None:
        raise LeaseLost
    return run


@transaction.atomic
def _take_up(run_id: int, owner: str) -> RunState | None:
    now = timezone.now()
    may_be_taken = Q(status__in=DRIVEN)
    if run_id in queue.next_in_line(now, lock=True):
        may_be_taken |= Q(status=RunStatus.QUEUED)
    taken = (
        Run.objects.without_owner(now)
        .filter(may_be_taken, pk=run_id)
        .update(
            lease_owner=owner,
            lease_fencing=F("lease_fencing") + 1,
            lease_expires_at=now + LEASE,
            started_at=Coalesce("started_at", now),
            start_at=None,
            reason=Case(When(status=RunStatus.QUEUED, then=Value("", TextField())), default=F("reason")),
            status=Case(When(status=RunStatus.QUEUED, then=Value(RunStatus.RUNNING.value)), default=F("status")),
        )
    )
    if not taken:
        return None
    run = Run.objects.select_related("app", "strategy_version", "origin__run__strategy_version").get(pk=run_id)
    lost = _abandon_orphans(run, "The aggregator that drove the round was lost.")
    state = _state_of(run)
    action = "run.started" if run.lease_fencing == 1 else "run.taken_up_again"
    record_act(
        run.federation, ENGINE, action, run, run=run.pk, worker=owner, rounds_done=run.rounds_done, rounds_lost=lost
    )
    return state


def _abandon_orphans(run: Run, reason: str) -> int:
    """How many rounds an earlier owner had left open."""
    orphans = run.rounds.filter(status=RoundStatus.RUNNING)
    Participation.objects.filter(round__in=orphans, outcome=Outcome.PENDING).update(
        outcome=Outcome.CANCELLED, reason=reason
    )
    return orphans.update(status=RoundStatus.ABANDONED, reason=reason, ended_at=timezone.now())


def _state_of(run: Run) -> RunState:
    spec = RunSpec(
        run_id=run.pk,
        name=run.name,
        federation_id=str(run.federation_id),
        app=run.app.name,
        app_version=run.app.version,
        signature=run.app.model_signature,
        strategy=run.strategy_version.parsed,
        seed=run.seed,
        num_rounds=run.num_rounds,
    )
    model = run.latest_model
    attempts = run.rounds.filter(number=run.rounds_done + 1).aggregate(last=Max("attempt"))
    stopping = spec.strategy.stopping
    deciding = run.metrics.filter(source=stopping.source, name=stopping.metric).values_list("round_number", "value")
    counted = (
        Participation.objects.filter(round__run=run, round__status=RoundStatus.COMMITTED, outcome=Outcome.COMPLETED)
        .values_list("client_id")
        .annotate(asked=Max(F("round__number") - F("staleness")))
        .order_by()
    )
    return RunState(
        spec=spec,
        lease=Lease(run.pk, run.lease_owner, run.lease_fencing),
        model=_record_of(model) if model else None,
        last_attempt=attempts["last"] or 0,
        last_event=run.events.aggregate(last=Max("seq"))["last"] or 0,
        deciding=dict(deciding),
        counted={str(client_id): asked for client_id, asked in counted},
        attendance=_attendance_of(run),
        paces=_paces_of(run),
        origin=_origin_of(run.origin) if run.origin else None,
    )


def _paces_of(run: Run) -> dict[str, list[Pace]]:
    """What was before a client's last deadline that it missed says nothing of what is usual now."""
    ended = (
        Participation.objects.filter(
            round__run__federation=run.federation_id,
            round__run__app=run.app_id,
            round__run__strategy_version=run.strategy_version_id,
            outcome__in=[Outcome.COMPLETED, Outcome.LATE],
        )
        .order_by("-pk")
        .values_list("client_id", "outcome", "download_seconds", "train_seconds", "upload_seconds")
    )
    paces: dict[str, list[Pace]] = defaultdict(list)
    for client_id, outcome, *seconds in reversed(ended[:KEPT_PACES]):
        if outcome == Outcome.LATE:
            paces.pop(str(client_id), None)
        else:
            paces[str(client_id)].append(Pace(*(one or 0.0 for one in seconds)))
    return dict(paces)


def _origin_of(model: ModelVersion) -> Origin:
    return Origin(model.run.name, _record_of(model), model.run.strategy_version.parsed)


def _record_of(model: ModelVersion) -> ModelRecord:
    return ModelRecord(model.run_id, model.round_number, model.key, model.sha256, model.size)


def _attendance_of(run: Run) -> dict[str, Attendance]:
    by_client = (
        Participation.objects.filter(round__run=run)
        .values_list("client")
        .annotate(asked=Count("pk"), completed=Count("pk", filter=Q(outcome=Outcome.COMPLETED)))
    )
    return {str(client): Attendance(asked, completed) for client, asked, completed in by_client}


@transaction.atomic
def _renew(lease: Lease) -> Directive:
    run = _fence(lease)
    # A renewal that waited while the run was ended or given back must not keep the next owner from it.
    Run.objects.filter(pk=run.pk, lease_owner=lease.owner).update(lease_expires_at=timezone.now() + LEASE)
    match run.status:
        case RunStatus.STOPPING:
            return Directive.STOP
        case RunStatus.PAUSING:
            return Directive.PAUSE_NOW if run.pause_at_once else Directive.PAUSE
    return Directive.GO_ON


@transaction.atomic
def _release(lease: Lease) -> None:
    _leave(_fence(lease))


def _leave(run: Run) -> None:
    """The next aggregator may take the run up at once; it keeps its place among those that run."""
    Run.objects.filter(pk=run.pk).update(lease_owner="", lease_expires_at=None)
    record_act(run.federation, ENGINE, "run.given_back", run, run=run.pk, worker=run.lease_owner)


@transaction.atomic
def _weights(lease: Lease, round_number: int) -> dict[str, int]:
    return weights.opened(_fence(lease), round_number, lease.fencing)


@transaction.atomic
def _begin_round(lease: Lease, record: RoundRecord) -> None:
    run = _fence(lease)
    row, begun = run.rounds.get_or_create(
        number=record.number, attempt=record.attempt, defaults={"started_at": record.started_at}
    )
    if begun:
        Participation.objects.bulk_create(
            Participation(round=row, client_id=report.client_id) for report in record.participations
        )


@transaction.atomic
def _commit_round(lease: Lease, record: RoundRecord, model: ModelRecord) -> None:
    run = _fence(lease)
    if run.models.filter(round_number=record.number, sha256=model.sha256).exists():
        return  # committed already
    if record.number:
        row = run.rounds.get(number=record.number, attempt=record.attempt)
        row.status = RoundStatus.COMMITTED
        row.closed_at, row.committed_at, row.ended_at = record.closed_at, record.committed_at, record.ended_at
        row.save(update_fields=["status", "closed_at", "committed_at", "ended_at"])
        _write_participations(row, record.participations, [*REPORT_FIELDS, *COMPARISON_FIELDS])
        digests.write([row])
    _write_metrics(run, record.number, record.metrics)
    ModelVersion.objects.create(
        run=run,
        round_number=record.number,
        parent=run.models.filter(round_number=record.number - 1).first(),
        key=model.key,
        sha256=model.sha256,
        size=model.size,
    )
    Run.objects.filter(pk=run.pk).update(rounds_done=record.number)
    _record_flags(run, record)


def _record_flags(run: Run, record: RoundRecord) -> None:
    reasons = {report.client_id: report.flag_reason for report in record.participations if report.flagged}
    if reasons:
        names = run.federation.clients.filter(pk__in=reasons).values_list("pk", "name")
        flagged = {name: reasons[str(pk)] for pk, name in names}
        record_act(
            run.federation,
            ENGINE,
            "client.flagged",
            ", ".join(flagged),
            run=run.pk,
            round=record.number,
            reasons=flagged,
        )


@transaction.atomic
def _abandon_round(lease: Lease, record: RoundRecord, reason: str) -> None:
    run = _fence(lease)
    row = run.rounds.get(number=record.number, attempt=record.attempt)
    row.status, row.reason, row.ended_at = RoundStatus.ABANDONED, reason, record.ended_at
    row.save(update_fields=["status", "reason", "ended_at"])
    _write_participations(row, record.participations)
    digests.write([row])
    record_act(
        run.federation, ENGINE, "round.abandoned", run, run=run.pk, round=row.number, attempt=row.attempt, reason=reason
    )


@transaction.atomic
def _record_evaluation(lease: Lease, record: RoundRecord) -> None:
    run = _fence(lease)
    row = run.rounds.get(number=record.number, attempt=record.attempt)
    row.ended_at = record.ended_at
    row.save(update_fields=["ended_at"])
    _write_participations(row, record.participations)
    digests.write([row])
    _write_metrics(run, record.number, [m for m in record.metrics if m.source != MetricSource.FIT])


@transaction.atomic
def _pause(lease: Lease, reason: str) -> str:
    run = _fence(lease)
    if not run.lease_owner:
        return str(run.federation_id)  # it rests already
    _abandon_orphans(run, reason or "The run was paused.")
    weights.close(run)
    if run.status == RunStatus.STOPPING or not (reason or run.status == RunStatus.PAUSING):
        _leave(run)  # the operator has changed their mind; the next aggregator will hear of it
    else:
        run.transition(
            RunStatus.PAUSED, reason=reason or run.reason, pause_at_once=False, lease_owner="", lease_expires_at=None
        )
    return str(run.federation_id)


@transaction.atomic
def _finish(lease: Lease, outcome: RunOutcome, reason: str, all_rounds: int | None) -> tuple[Ending, str]:
    run = _fence(lease)
    ending = _ended(run) if not run.lease_owner else _end(run, outcome, reason, all_rounds)
    return ending, str(run.federation_id)


def _ended(run: Run) -> Ending:
    """What has become of a run that its owner has let go of."""
    if run.is_terminal:
        return Ending.ENDED
    return Ending.RETRIED if run.status == RunStatus.QUEUED else Ending.EXTENDED


def _end(run: Run, outcome: RunOutcome, reason: str, all_rounds: int | None) -> Ending:
    weights.close(run)
    if all_rounds is not None and run.num_rounds > all_rounds:
        _leave(run)
        return Ending.EXTENDED
    if outcome is RunOutcome.FAILED and run.retries < run.max_retries and run.status != RunStatus.STOPPING:
        _retry(run, reason)
        return Ending.RETRIED
    run.transition(
        RunStatus(outcome.value),
        reason=run.reason
        if outcome is RunOutcome.STOPPED and run.reason
        else reason,  # who stopped it is known better there
        ended_at=timezone.now(),
        lease_owner="",
        lease_expires_at=None,
    )
    record_act(
        run.federation, ENGINE, "run.ended", run,
        run=run.pk, outcome=outcome.value, reason=run.reason, rounds_done=run.rounds_done,
    )  # fmt: skip
    return Ending.ENDED


def _retry(run: Run, reason: str) -> None:
    """Back into the queue, after a pause that doubles each time."""
    now = timezone.now()
    run.transition(
        RunStatus.QUEUED,
        reason=f"Attempt {run.retries + 1} failed: {reason}",
        retries=run.retries + 1,
        start_at=now + min(FIRST_RETRY * 2**run.retries, LONGEST_RETRY),
        queued_at=now,
        lease_owner="",
        lease_expires_at=None,
    )
    record_act(run.federation, ENGINE, "run.retried", run, run=run.pk, reason=run.reason, rounds_done=run.rounds_done)


def _settled(client: ClientIdentity, run_ids: Collection[str]) -> dict[str, int | None]:
    numbers = {run_id: int(run_id) for run_id in run_ids if run_id.isdecimal() and int(run_id) <= MOST_RUN_ID}
    runs = (
        Run.objects.filter(federation_id=client.federation_id)
        .select_related("strategy_version")
        .in_bulk(numbers.values())
    )
    settled: dict[str, int | None] = {}
    for run_id in run_ids:
        run = runs.get(numbers.get(run_id, 0))
        if run is None or (run.is_terminal and run.status != RunStatus.FAILED):
            settled[run_id] = None
        elif (through := _settled_through(run, client.client_id)) is not None:
            settled[run_id] = through
    return settled


def _settled_through(run: Run, client_id: str) -> int | None:
    """In a buffered run a client that was asked earlier may be counted later."""
    if (model := run.latest_model) is None or not isinstance(run.strategy_version.parsed.mode, Buffered):
        return model.round_number if model else None
    counted = Participation.objects.filter(
        round__run=run, round__status=RoundStatus.COMMITTED, outcome=Outcome.COMPLETED, client_id=client_id
    ).aggregate(asked=Max(F("round__number") - F("staleness")))
    return counted["asked"] or 0


@transaction.atomic
def _store_events(lease: Lease, events: Sequence[Event]) -> list[EventRow]:
    run = _fence(lease)
    # Whoever holds the newest lease alone writes numbers from here on: those that are there are its own.
    stored = run.events.filter(seq__gte=events[0].seq).aggregate(last=Max("seq"))["last"] or 0
    return EventRow.objects.bulk_create(
        EventRow(
            run=run,
            seq=event.seq,
            at=event.at,
            kind=event.kind,
            level=event.level,
            round_number=event.round_number,
            client_id=event.client_id,
            message=event.message,
            data=dict(event.data),
        )
        for event in events
        if event.seq > stored
    )


def _write_participations(
    row: Round, reports: Sequence[ParticipationReport], fields: Sequence[str] = REPORT_FIELDS
) -> None:
    """In a buffered run clients join in the middle of a round, and those that train on at its end were no part of it.

    One statement writes all: a `bulk_update` of so many fields took more of a short round's time than all else in the database.
    """
    row.participations.exclude(client_id__in=[report.client_id for report in reports]).delete()
    Participation.objects.bulk_create(
        [
            Participation(
                round=row,
                client_id=report.client_id,
                replaces_id=report.replaces or None,
                **{field: _as_json(getattr(report, field)) for field in fields},
            )
            for report in reports
        ],
        update_conflicts=True,
        unique_fields=["round", "client"],
        update_fields=["replaces", *fields],
    )


def _as_json(value: object) -> object:
    """An outcome is an enum of the engine's."""
    if isinstance(value, dict):
        return scalars_to_json(value)
    return value.value if isinstance(value, EngineOutcome) else value


def _write_metrics(run: Run, round_number: int, metrics: Iterable[MetricRecord]) -> None:
    Metric.objects.bulk_create(
        [
            Metric(
                run=run,
                round_number=round_number,
                source=metric.source,
                name=metric.name,
                value=metric.value,
                num_examples=metric.num_examples,
            )
            for metric in metrics
        ],
        ignore_conflicts=True,
    )
