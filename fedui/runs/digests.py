"""What pages show of all the clients of a round, computed once, when the round has ended: totals, and how each measure was spread.

So a page of 500 rounds of 1,000 clients reads 500 rows, and not 500,000.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from django.db.models.fields.json import KT

from fedui.runs.models import Outcome, Participation, Round, RoundDigest, RoundStatus, Run

QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
MEASURES = ("norm", "cosine", "loss", "duration", "bytes")
DIGITS = 5
"""Significant ones, of what is only looked at."""
MOST_FLAGGED = 50
ROUNDS_AT_ONCE = 50
NORMAL = 1.4826
"""Times the median absolute deviation: the standard deviation of what is normally distributed."""


class Part(NamedTuple):
    """What is measured of one client in one round."""

    round: int
    client: str
    outcome: str
    norm: float | None
    """As a multiple of the round's median."""
    cosine: float | None
    loss: float | None
    duration: float | None
    bytes: int
    bytes_down: int
    flagged: bool
    replaces: bool

    def measure(self, name: str) -> float | None:
        value: float | None = getattr(self, name)
        return value


def measured(participations: Any) -> list[Part]:
    """Of a query set of participations, without its order."""
    rows = participations.order_by().values_list(
        "round_id", "client_id", "outcome", "norm_ratio", "cosine_to_aggregate", KT("metrics__loss"),
        "download_seconds", "train_seconds", "upload_seconds", "bytes_up", "bytes_down", "flagged", "replaces_id",
    )  # fmt: skip
    return [
        Part(
            round_,
            str(client),
            outcome,
            norm,
            cosine,
            number_or_none(loss),
            _sum(seconds),
            up,
            down,
            flagged,
            bool(replaces),
        )
        for round_, client, outcome, norm, cosine, loss, *seconds, up, down, flagged, replaces in rows
    ]


def number_or_none(text: Any) -> float | None:
    """A client's word on its loss may be anything."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def _sum(seconds: Sequence[float | None]) -> float | None:
    told = [one for one in seconds if one is not None]
    return sum(told) if told else None


def write(rounds: Iterable[Round]) -> None:
    """Again, where there is one: a round's evaluation may have changed what it counts."""
    by_id = {round_.pk: round_ for round_ in rounds}
    parts: dict[int, list[Part]] = defaultdict(list)
    for part in measured(Participation.objects.filter(round__in=by_id)):
        parts[part.round].append(part)
    RoundDigest.objects.bulk_create(
        [_digest(round_, parts[pk]) for pk, round_ in by_id.items()],
        update_conflicts=True,
        unique_fields=["round"],
        update_fields=["expected", "received", "bytes_up", "bytes_down", "spread", "flagged"],
    )


def ensure(run: Run) -> None:
    """Those of rounds that an older release has left, or a worker that was lost."""
    missing = list(run.rounds.exclude(status=RoundStatus.RUNNING).filter(digest=None).order_by("pk"))
    for start in range(0, len(missing), ROUNDS_AT_ONCE):
        write(missing[start : start + ROUNDS_AT_ONCE])


def _digest(round_: Round, parts: list[Part]) -> RoundDigest:
    done = [part for part in parts if part.outcome == Outcome.COMPLETED]
    flagged = sorted((part for part in done if part.flagged), key=lambda part: -abs((part.norm or 1.0) - 1.0))
    return RoundDigest(
        round=round_,
        expected=sum(not part.replaces for part in parts),
        received=len(done),
        bytes_up=sum(part.bytes for part in parts),
        bytes_down=sum(part.bytes_down for part in parts),
        spread={name: spread for name in MEASURES if (spread := _spread([part.measure(name) for part in done]))},
        flagged=[part.client for part in flagged[:MOST_FLAGGED]],
    )


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    told = np.array([value for value in values if value is not None], np.float64)
    if not told.size:
        return None
    deviation = NORMAL * float(np.median(np.abs(told - np.median(told))))
    return {
        "quantiles": [shortened(v) for v in np.quantile(told, QUANTILES).tolist()],
        "deviation": shortened(deviation),
    }


def shortened(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
