"""The recent history of vitals: means over minutes for an hour or so, over quarters of an hour for a day.

Each worker adds up what it hears, and writes whole spans in bulk: a few rows a minute and client, whatever the number of heartbeats. What
a worker that dies had not written yet is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db.models import Count
from django.utils import timezone

from aggregator.ports import Sign
from fedui.clients.models import Client, Connection, VitalsSample

KEPT = {60: timedelta(minutes=70), 900: timedelta(hours=26)}
"""Length of a sample in seconds, and how long it is kept."""
CONNECTIONS_KEPT = timedelta(days=30)
MOST_CONNECTIONS = 200
"""That are kept of one client: one that flaps must not fill the table."""


@dataclass(slots=True)
class _Span:
    at: datetime
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, vitals: Mapping[str, float]) -> None:
        for name, value in vitals.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: total / self.counts[name] for name, total in self.sums.items()}


class VitalsHistory:
    """Of the clients of one worker."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], _Span] = {}

    def add(self, signs: Iterable[Sign], now: datetime | None = None) -> None:
        """Take in what was heard, and write the spans that are over."""
        moment = now or timezone.now()
        self._write_ended(moment)
        for sign in signs:
            if sign.vitals:
                for seconds in KEPT:
                    self._open.setdefault((sign.client_id, seconds), _Span(_begin(moment, seconds))).add(sign.vitals)

    def _write_ended(self, now: datetime) -> None:
        ended = [key for key, span in self._open.items() if span.at < _begin(now, key[1])]
        if not ended:
            return
        samples = [
            VitalsSample(client_id=client_id, seconds=seconds, at=span.at, values=span.means())
            for client_id, seconds in ended
            if (span := self._open.pop((client_id, seconds)))
        ]
        known = set(
            map(
                str, Client.objects.filter(pk__in={sample.client_id for sample in samples}).values_list("pk", flat=True)
            )
        )
        VitalsSample.objects.bulk_create((s for s in samples if str(s.client_id) in known), ignore_conflicts=True)


def _begin(moment: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // seconds * seconds, UTC)


def forget_old() -> None:
    """Drop samples and connections that are older than what is shown."""
    now = timezone.now()
    for seconds, age in KEPT.items():
        VitalsSample.objects.filter(seconds=seconds, at__lt=now - age).delete()
    Connection.objects.filter(closed_at__lt=now - CONNECTIONS_KEPT).delete()
    counted = Connection.objects.order_by().values("client").annotate(number=Count("pk"))
    for row in counted.filter(number__gt=MOST_CONNECTIONS):
        of_client = Connection.objects.filter(client=row["client"])
        kept = list(of_client.values_list("pk", flat=True)[:MOST_CONNECTIONS])
        of_client.exclude(pk__in=kept).delete()
