"""What rounds, participations, events and calls add to the counts. The engine's stores call this once a thing is written."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.utils import timezone

from aggregator.core.round import ParticipationReport
from aggregator.ports import Event, RoundRecord
from fedui.metrics import counted


def round_committed(record: RoundRecord) -> None:
    if not record.number:
        return  # the model that the run begins with
    _ended(record, "committed")
    _took("collect", record.started_at, record.closed_at)
    _took("aggregate", record.closed_at, record.committed_at)


def round_abandoned(record: RoundRecord) -> None:
    _ended(record, "abandoned")


def round_evaluated(record: RoundRecord) -> None:
    _took("evaluate", record.committed_at, record.ended_at)


def events_stored(events: Iterable[Event]) -> None:
    now = timezone.now()
    for event in events:
        counted.EVENT_LAG.observe(max(0.0, (now - event.at).total_seconds()))


def call_ended(method: str, code: str, seconds: float) -> None:
    """`method` is one of the engine's own, or `other`: peers can't invent labels."""
    counted.CALLS.labels(method, code).inc()
    counted.CALL_SECONDS.labels(method, code).observe(seconds)


def _ended(record: RoundRecord, outcome: str) -> None:
    counted.ROUNDS.labels(outcome).inc()
    for report in record.participations:
        _took_part(report)


def _took_part(report: ParticipationReport) -> None:
    counted.PARTICIPATIONS.labels(report.outcome.value).inc()
    counted.BYTES.labels("up").inc(report.bytes_up)
    counted.BYTES.labels("down").inc(report.bytes_down)
    phases = {"download": report.download_seconds, "train": report.train_seconds, "upload": report.upload_seconds}
    for phase, seconds in phases.items():
        if seconds is not None:
            counted.CLIENT_SECONDS.labels(phase).observe(seconds)


def _took(phase: str, begun: datetime | None, ended: datetime | None) -> None:
    if begun and ended:
        counted.ROUND_SECONDS.labels(phase).observe(max(0.0, (ended - begun).total_seconds()))
