"""How much one client may ask of the server at a time, so that none takes it from the others."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """An agent that does its work stays far below all of them."""

    calls_at_once: int = 16
    """Of one client. An agent has its stream and a transfer or two; and those that the server takes for alive after a lost connection."""
    connects_at_once: int = 10
    connect_seconds: float = 2.0
    """A client may open `connects_at_once` streams in a row, and one more each `connect_seconds`: each is a write to the database."""
    messages_per_second: float = 500.0
    """Of one stream; what comes faster waits in the peer's buffers."""
    read_seconds: float = 30.0
    """A peer that reads nothing of its stream for so long has lost it."""
    joins_at_once: int = 50
    """Of all clients together. Who would wait so long that it gives up and comes again is told at once to come later."""
    reconnects_per_second: float = 100.0
    """Of all clients together, when a server ends and tells them to come again."""


class Allowance:
    """How often each client may do a thing: `burst` times in a row, and once more every `seconds` (GCRA, ITU-T I.371)."""

    def __init__(self, burst: int, seconds: float) -> None:
        self._burst, self._seconds = burst, seconds
        self._whole_at: dict[str, float] = {}

    def take(self, client_id: str) -> bool:
        """False if the client has used it up."""
        now = time.monotonic()
        whole_at = max(self._whole_at.get(client_id, now), now) + self._seconds
        if whole_at - now > self._burst * self._seconds:
            return False
        self._whole_at[client_id] = whole_at
        return True
