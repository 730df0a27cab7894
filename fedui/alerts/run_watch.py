"""What rules find about runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.db.models import F, OuterRef, Q, Subquery, Window
from django.db.models.functions import Lag

from fedui.alerts.occurrences import Occurrence, about_client, about_run
from fedui.federations.models import Federation
from fedui.runs.models import DRIVEN, Event, Metric, Outcome, Participation, Round, RoundStatus, Run, RunStatus
from fedui.web.figures import duration

RESTS = ("run.waiting", "run.paused", "run.finished", "run.retried", "run.extended", "round.waiting")
"""After these, silence is as it should be."""
QUORUM_WORDS = ("updates were still possible", "the quorum is")
"""What the engine's reasons say where a round has missed its quorum (`aggregator.core.round`)."""


def stalled(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    """Silences of `minutes` and more, between two events of a run and since its last one."""
    patience = timedelta(minutes=given["minutes"])
    told = Event.objects.filter(run__federation=federation, at__gt=since - patience)
    silences = (
        told.annotate(heard=_previous("at"), after=_previous("kind"))
        .filter(at__gt=since, heard__lt=F("at") - patience)
        .exclude(after__in=RESTS)
    )
    for event in silences.select_related("run").order_by("at"):
        yield _stalled(event.run, event.heard + patience, event.at)
    last = Event.objects.filter(run=OuterRef("pk")).order_by("-seq")
    driven = federation.runs.filter(status__in=DRIVEN).annotate(
        heard=Subquery(last.values("at")[:1]), after=Subquery(last.values("kind")[:1])
    )
    silent = driven.filter(heard__lte=now - patience).exclude(after__in=RESTS)
    heard = dict(silent.values_list("pk", "heard"))
    for run in federation.runs.filter(pk__in=heard):
        silence = duration(round((now - heard[run.pk]).total_seconds()))
        yield _stalled(run, heard[run.pk] + patience, None, f"Nothing was heard of it for {silence}.")


def _previous(field: str) -> Window:
    """Of the event before, in its run."""
    return Window(Lag(field), partition_by="run", order_by="seq")


def _stalled(run: Run, at: datetime, until: datetime | None, detail: str = "") -> Occurrence:
    return Occurrence(about_run(run), at, until, f"Run {run.name} is stalled", detail, run=run)


def failed(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    for run in federation.runs.filter(status=RunStatus.FAILED, ended_at__gt=since):
        assert run.ended_at
        yield Occurrence(about_run(run), run.ended_at, None, f"Run {run.name} has failed", run.reason, run=run)


def finished(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    for run in federation.runs.filter(status=RunStatus.COMPLETED, ended_at__gt=since):
        assert run.ended_at
        detail = f"{run.rounds_done} of {run.num_rounds} rounds. {run.reason}".strip()
        title = f"Run {run.name} is completed"
        yield Occurrence(about_run(run), run.ended_at, run.ended_at, title, detail, run=run)


def beyond_threshold(
    federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime
) -> Iterator[Occurrence]:
    committed = Round.objects.filter(
        run=OuterRef("run"), number=OuterRef("round_number"), status=RoundStatus.COMMITTED
    ).values("committed_at")
    values = (
        Metric.objects.filter(run__federation=federation, source=given["source"], name=given["metric"])
        .annotate(at=Subquery(committed[:1]))
        .filter(at__gt=since)
        .select_related("run")
        .order_by("run", "round_number")
    )
    limit, below = given["threshold"], given["comparison"] == "below"
    for run, of_run in groupby(values, key=lambda row: row.run):
        points = [(row.at, row.value < limit if below else row.value > limit, row) for row in of_run]
        for at, until, row in streaks(points, 1, run.ended_at):
            title = f"{given['metric']} of run {run.name} is {given['comparison']} {limit:g}"
            yield Occurrence(
                about_run(run), at, until, title, f"{row.value:.6g} after round {row.round_number}.", run=run
            )


def flagged(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    """Streaks of flagged updates of a client in a run."""
    counted = Participation.objects.filter(
        round__run__federation=federation, round__committed_at__gt=since, outcome=Outcome.COMPLETED
    )
    suspects = counted.filter(flagged=True).values_list("client", "round__run").distinct().order_by()
    clients, runs = {client for client, _ in suspects}, {run for _, run in suspects}
    rows = (
        counted.filter(client__in=clients, round__run__in=runs)
        .select_related("client", "round__run")
        .order_by("client", "round__run", "round__number")
    )
    for (client, run), of_pair in groupby(rows, key=lambda row: (row.client, row.round.run)):
        points = [(moment, row.flagged, row) for row in of_pair if (moment := row.round.committed_at)]
        for at, until, row in streaks(points, given["rounds"], run.ended_at):
            title = f"{client.name} sends suspicious updates"
            detail = f"Round {row.round.number} of run {run.name}: {row.flag_reason}."
            yield Occurrence(about_client(client), at, until, title, detail, client=client, run=run)


def quorum_missed(
    federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime
) -> Iterator[Occurrence]:
    missed = Q()
    for words in QUORUM_WORDS:
        missed |= Q(reason__contains=words)
    ended = Q(status=RoundStatus.COMMITTED, committed_at__gt=since) | Q(
        status=RoundStatus.ABANDONED, ended_at__gt=since
    )
    concerned = Round.objects.filter(missed, status=RoundStatus.ABANDONED, ended_at__gt=since).values("run")
    rounds = (
        Round.objects.filter(ended, run__in=concerned, run__federation=federation)
        .select_related("run")
        .order_by("run", "number", "attempt")
    )
    for run, of_run in groupby(rounds, key=lambda row: row.run):
        points = [(moment, _missed(row), row) for row in of_run if (moment := row.committed_at or row.ended_at)]
        for at, until, row in streaks(points, given["rounds"], run.ended_at):
            title = f"Run {run.name} has missed its quorum"
            yield Occurrence(about_run(run), at, until, title, f"Round {row.number}: {row.reason}", run=run)


def _missed(row: Round) -> bool:
    return row.status == RoundStatus.ABANDONED and any(words in row.reason for words in QUORUM_WORDS)


def streaks(
    points: Iterable[tuple[datetime, bool, Any]], least: int, end: datetime | None
) -> Iterator[tuple[datetime, datetime | None, Any]]:
    """From the `least`-th bad point in a row to the next good one, or to the end of all; and the last bad row."""
    length, begun, last = 0, None, None
    for at, bad, row in points:
        if bad:
            length += 1
            last = row
            begun = at if length == least else begun
        else:
            if begun:
                yield begun, at, last
            length, begun = 0, None
    if begun:
        yield begun, end, last
