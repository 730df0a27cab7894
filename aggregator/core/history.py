"""How long clients usually take, and the deadline that follows for each."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PARTS = 20
"""So many of a client's last parts are looked at."""
FEWEST = 3
"""With fewer nothing is usual."""
QUANTILE = 0.9


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that one completed part took."""

    download: float
    train: float
    upload: float


class History:
    """Of each client the last parts that it completed, of the same app and strategy in its federation.

    The usual time is the sum over the phases of each one's 9th decile: one slow day in ten doesn't move it, nor does an outlier of
    any size. A client that has missed its own deadline has shown nothing but that it was too short: it begins anew.
    """

    def __init__(self, paces: Mapping[str, Iterable[Pace]] | None = None) -> None:
        """`paces`: the newest last."""
        self._paces = {client: deque(those, PARTS) for client, those in (paces or {}).items()}

    def completed(self, client: str, pace: Pace) -> None:
        self._paces.setdefault(client, deque(maxlen=PARTS)).append(pace)

    def missed(self, client: str) -> None:
        self._paces.pop(client, None)

    def usual_seconds(self, client: str) -> float | None:
        """None of a client that isn't known well enough."""
        paces = self._paces.get(client, ())
        if len(paces) < FEWEST:
            return None
        phases = zip(*((p.download, p.train, p.upload) for p in paces), strict=True)
        return math.fsum(_decile(phase) for phase in phases)

    def upload_seconds(self, client: str) -> float | None:
        paces = self._paces.get(client, ())
        return _decile([p.upload for p in paces]) if len(paces) >= FEWEST else None


def _decile(values: Iterable[float]) -> float:
    """The smallest value that nine in ten don't exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(QUANTILE * len(ordered)) - 1]
