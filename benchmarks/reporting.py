"""What every benchmark prints: one JSON object a line."""

from __future__ import annotations

import json
import os
from typing import Any


def report(
    name: str,
    value: float,
    unit: str,
    reference: float,
    *,
    ok: bool | None = None,
    why_missed: str = "",
    **settings: Any,
) -> None:
    """`reference` was measured in the same run, in the same unit; `settings["against"]` says what it is.

    `ok` is whether the bar was met; None where none is set. `why_missed` is told only where it was not.
    """
    if ok is False and why_missed:
        settings["why_missed"] = why_missed
    line = {
        "name": name,
        "value": round(value, 6),
        "unit": unit,
        "reference": round(reference, 6),
        "ratio": round(value / reference, 3),
        "ok": ok,
        "settings": settings,
    }
    print(json.dumps(line), flush=True)


def load() -> float:
    """Processes that wanted to run in the last minute, for each processor: much above 1, seconds are those of a machine that others use."""
    return round(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
