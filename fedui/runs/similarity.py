"""How alike the updates of a round were, from the sketches that were kept of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from aggregator.core.statistics import WIDTH, cosines, unpack
from fedui.errors import DomainError, ErrorCode
from fedui.runs.models import Round

DIGITS = 3
"""Of a cosine: the sketch knows no more."""
MOST_UPDATES = 500
"""Their pairs are told in about 2 MB."""


class TooManyUpdates(DomainError):
    """The answer grows with the square of the updates."""

    code = ErrorCode.INVALID_REQUEST


def similarity_payload(round_: Round) -> dict[str, Any]:
    """The clients whose updates were aggregated, and the cosine of each pair; None where one update has no direction.

    Raises `TooManyUpdates`.
    """
    measured = round_.participations.exclude(update_sketch=b"").order_by("client_id")
    if (number := measured.count()) > MOST_UPDATES:
        raise TooManyUpdates(
            f"Round {round_.number} has {number:,} updates; those of at most {MOST_UPDATES} are compared in pairs.",
            hint="The cosine of each update to the aggregate is told with its participation.",
        )
    kept = list(measured.values_list("client_id", "update_sketch"))
    sketches = np.array([unpack(bytes(sketch)) for _, sketch in kept], np.float32).reshape(len(kept), WIDTH)
    estimated = cosines(sketches, sketches)
    return {
        "round": round_.number,
        "attempt": round_.attempt,
        "clients": [str(client_id) for client_id, _ in kept],
        "cosines": [[None if np.isnan(c) else round(c, DIGITS) for c in row] for row in estimated.tolist()],
    }
