"""From a rule to what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from fedui.alerts import fleet_watch, run_watch
from fedui.alerts.kinds import Kind
from fedui.alerts.occurrences import Occurrence
from fedui.federations.models import Federation

PREVIEW = timedelta(days=7)
SHOWN = 20

Finder = Callable[[Federation, Mapping[str, Any], datetime, datetime], Iterator[Occurrence]]
FINDERS: Mapping[Kind, Finder] = {
    Kind.CLIENT_OFFLINE: fleet_watch.offline,
    Kind.RUN_STALLED: run_watch.stalled,
    Kind.RUN_FAILED: run_watch.failed,
    Kind.RUN_FINISHED: run_watch.finished,
    Kind.METRIC_THRESHOLD: run_watch.beyond_threshold,
    Kind.UPDATE_FLAGGED: run_watch.flagged,
    Kind.CERTIFICATE_EXPIRING: fleet_watch.expiring,
    Kind.DISK_LOW: fleet_watch.disk_low,
    Kind.QUORUM_MISSED: run_watch.quorum_missed,
}
KNOWN_OF: Mapping[Kind, str] = {
    Kind.RUN_STALLED: "Of runs whose progress is no longer kept, silences may be counted that were none.",
    Kind.DISK_LOW: "Of the agents’ disks the last day is known, of the server’s only how it is now.",
}
"""What a preview can't know."""


def find(
    kind: Kind, federation: Federation, settings: Mapping[str, Any], since: datetime, now: datetime
) -> list[Occurrence]:
    return sorted(FINDERS[kind](federation, settings, since, now), key=lambda found: found.at)


def preview(kind: Kind, federation: Federation, settings: Mapping[str, Any], now: datetime) -> list[Occurrence]:
    """When such a rule would have fired in the last week: the newest first."""
    return find(kind, federation, settings, now - PREVIEW, now)[::-1]
