"""How fast the network is, measured in the transfers that there are anyway."""

from __future__ import annotations

import time

LEAST_BYTES = 64 * 1024
"""Smaller transfers measure the delay of the network, not its rate."""


class Speed:
    """Bytes a second of the last transfer each way; None before the first of some size."""

    def __init__(self) -> None:
        self.up: float | None = None
        self.down: float | None = None

    def downloaded(self, size: int, since: float) -> None:
        self.down = _rate(size, since) or self.down

    def uploaded(self, size: int, since: float) -> None:
        self.up = _rate(size, since) or self.up


def _rate(size: int, since: float) -> float | None:
    """`since`: by `time.monotonic`."""
    return size / max(time.monotonic() - since, 1e-6) if size >= LEAST_BYTES else None
