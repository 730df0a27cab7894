"""Ends the connections of clients that were suspended or revoked, within two seconds whatever else is down.

The database is asked every second; an operator's act asks at once, where the channel layer delivers it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta

from aggregator.hub import Hub
from aggregator.ports import Barred, ClientRegistry
from aggregator.transport.calls import OpenCalls

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
OVERLAP = timedelta(seconds=60)
"""Looked at again each time: for acts whose transaction took its time, and for clocks that differ."""
GOODBYE_SECONDS = 0.5
"""For a peer to hear why, before its calls are cut."""


class Barring:
    """`run` beside the server, and `look_now` when there is something to see."""

    def __init__(self, registry: ClientRegistry, hub: Hub, calls: OpenCalls) -> None:
        self._registry = registry
        self._hub = hub
        self._calls = calls
        self._due = asyncio.Event()

    def look_now(self) -> None:
        self._due.set()

    async def run(self) -> None:
        seen = datetime.now(UTC)
        while True:
            self._due.clear()
            now = datetime.now(UTC)
            try:
                for barred in await self._registry.barred(seen - OVERLAP):
                    self._end(barred)
                seen = now
            except Exception:  # whatever the database raises
                logger.exception("Can't see who has been suspended or revoked; trying again")
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._due.wait(), LOOK_SECONDS)

    def _end(self, barred: Barred) -> None:
        now = datetime.now(UTC)
        joined_before = barred.at if barred.active else now
        self._hub.evict(barred.client_id, barred.reason, joined_before=joined_before, come_back=barred.may_return)
        # Not by the time of the act: while it was being written, a call with the old key could still begin.
        loop = asyncio.get_running_loop()
        loop.call_later(GOODBYE_SECONDS, self._calls.cut, barred.client_id, barred.reason, now, barred.keep)
