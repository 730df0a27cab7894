"""How many transfers there are, how slow one may be, and how fast one client."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from protos import limits

QUICK_SECONDS = 0.5
"""A chunk that leaves sooner is followed by a larger one. On a slow line a large one might take longer than a peer waits."""
BURST_SECONDS = 0.25
"""What a client has not used of its rate for so long it may catch up on."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Raises `ValueError` where they contradict one another."""

    uploads_at_once: int = 16
    """Uploads whose bytes are taken at a time; the others wait, first come, first served."""
    updates_in_memory: int = 2
    """Of one run: one is checked while another is aggregated."""
    idle_seconds: float = 60.0
    """A transfer that moves nothing for so long is ended; what has arrived is kept."""
    least_rate: float = 4096.0
    """Bytes a second, on average, below which a transfer is ended."""
    most_rate: float = math.inf
    """Bytes a second of one client, both ways together."""
    held_bytes: int = 64 * 1024**2
    """Of small updates that are kept in memory while they come; beyond that they are spooled as large ones are."""
    spool_bytes: int = 64 * 1024**3
    """Of all partial uploads, on the disk."""
    keep_seconds: float = 600.0
    """How long a partial upload is kept whose task is over: the next one may ask for the same update."""

    def __post_init__(self) -> None:
        if self.uploads_at_once < 1 or self.updates_in_memory < 1:
            raise ValueError("At least one upload must be possible at a time.")
        if self.idle_seconds <= 0 or self.least_rate <= 0 or self.spool_bytes <= 0:
            raise ValueError("Seconds, rates and sizes are larger than 0.")
        if self.most_rate < 2 * self.least_rate:
            raise ValueError(f"A client must be allowed at least {2 * self.least_rate:,.0f} bytes a second.")


class StreamEnded(Exception):
    """The server ends a transfer that may go on later; the text is for the owner of the client and for the log."""


class TransferStream:
    """One transfer under way: ended when it stands still, when it is too slow, and when another takes its place."""

    def __init__(self, limits: TransferLimits) -> None:
        self.delivery: asyncio.Task[None] | None = None
        """Brings the whole update into its round, whatever becomes of the connection."""
        self._limits = limits
        self._clock: asyncio.Timeout | None = None
        self._began = 0.0
        self._bytes = 0
        self._reason = ""
        self._ended = False

    @asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """Raises `StreamEnded` when the stream is ended meanwhile. The clock runs from `start` on."""
        if self._ended:
            raise StreamEnded(self._reason)
        try:
            async with asyncio.timeout(None) as self._clock:
                yield
        except TimeoutError:
            raise StreamEnded(self._reason) from None
        finally:
            self._clock = None

    def start(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self._await_more()

    def moved(self, nbytes: int) -> None:
        self._bytes += nbytes
        if nbytes:
            self._await_more()

    def end(self, reason: str) -> None:
        self._ended, self._reason = True, reason
        if self._clock and not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time())

    def _await_more(self) -> None:
        if self._ended or self._clock is None or self._clock.expired():
            return
        idle, rate = self._limits.idle_seconds, self._limits.least_rate
        still = asyncio.get_running_loop().time() + idle
        slow = self._began + idle + self._bytes / rate
        self._reason = (
            f"Nothing has moved for {idle:g} s."
            if still <= slow or not self._bytes
            else f"It moved less than {rate:,.0f} bytes a second."
        )
        self._clock.reschedule(min(still, slow))


def chunk_bytes_after(seconds: float) -> int:
    """How much to send next when the last chunk took so long."""
    return limits.QUICK_CHUNK_BYTES if seconds < QUICK_SECONDS else limits.CHUNK_BYTES


class Pace:
    """Holds one client to its rate, by making its transfers wait."""

    def __init__(self, most_rate: float) -> None:
        self._rate = most_rate
        self._free_at = 0.0

    async def keep(self, nbytes: int) -> None:
        if self._rate == math.inf:
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - BURST_SECONDS) + nbytes / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
