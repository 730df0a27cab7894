"""How alike the updates of a round were, from the sketches that were kept of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from aggregator.core.statistics import WIDTH, cosines, unpack
from fedui.runs.models import Round

DIGITS = 3
"""Of a cosine: the sketch knows no more."""


def similarity_payload(round_: Round) -> dict[str, Any]:
    """The clients whose updates were aggregated, and the cosine of each pair; None where one update has no direction."""
    measured = round_.participations.exclude(update_sketch=b"").order_by("client_id")
    kept = list(measured.values_list("client_id", "update_sketch"))
    sketches = np.array([unpack(bytes(sketch)) for _, sketch in kept], np.float32).reshape(len(kept), WIDTH)
    estimated = cosines(sketches, sketches)
    return {
        "round": round_.number,
        "attempt": round_.attempt,
        "clients": [str(client_id) for client_id, _ in kept],
        "cosines": [[None if np.isnan(c) else round(c, DIGITS) for c in row] for row in estimated.tolist()],
    }
