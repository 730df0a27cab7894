"""What is kept and told of the updates' looks: from `aggregator.core.statistics` to participations and events."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aggregator.core.round import ParticipationReport
from aggregator.core.statistics import RoundStatistics, UpdateStatistics, pack

COMPARED = ("norm_ratio", "cosine_to_aggregate", "z_norm", "z_cosine")


def note_update(report: ParticipationReport, statistics: UpdateStatistics) -> None:
    report.update_norm = _finite(statistics.norm)
    report.update_largest = _finite(statistics.largest)
    report.update_sketch = pack(statistics.sketch)


def note_comparison(reports: Mapping[str, ParticipationReport], statistics: RoundStatistics) -> None:
    for client_id, client in statistics.clients.items():
        report = reports[client_id]
        for name in COMPARED:
            setattr(report, name, getattr(client, name))
        report.flagged, report.flag_reason = client.flagged, client.reason


def comparisons_json(reports: Iterable[ParticipationReport]) -> dict[str, dict[str, Any]]:
    """By client, of those whose updates were aggregated. Every number is finite or None, as JSON wants it."""
    told = ("update_norm", *COMPARED, "flagged", "flag_reason")
    return {r.client_id: {name: getattr(r, name) for name in told} for r in reports if r.update_sketch}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
