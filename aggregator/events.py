"""The event log of a run: numbers events as they happen, and hands them to the sink in batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aggregator.ports import Event, EventSink, EventsRefused, Lease, LeaseLost, Level

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.26
"""From one batch to the next; the first event after a quiet time goes at once. Pages paint at most four times a second: at just that pace
one late frame would keep all after it waiting."""
RETRY_SECONDS = 2.0
BATCH = 500
LOST = "event.lost"


class EventLog:
    """Events of one run. `emit` never waits; a sink that fails is tried again, and nothing is dropped or reordered.

    An event that the sink refuses gives its number to one that says so, so that numbers have no gap, at which pages would wait.
    """

    def __init__(self, lease: Lease, last_seq: int, sink: EventSink) -> None:
        self._lease = lease
        self._seq = last_seq
        self._sink = sink
        self._buffer: list[Event] = []
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._flush_until_closed(), name=f"events of run {lease.run_id}")

    def emit(
        self,
        kind: str,
        message: str,
        *,
        level: Level = Level.INFO,
        round_number: int | None = None,
        client_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._seq += 1
        now = datetime.now(UTC)
        self._buffer.append(
            Event(self._lease.run_id, self._seq, now, kind, level, message, round_number, client_id, data or {})
        )
        self._wake.set()

    async def close(self) -> None:
        """Returns when all events are stored, or the lease is lost."""
        self._closing.set()
        self._wake.set()
        await self._task

    async def _flush_until_closed(self) -> None:
        now = asyncio.get_running_loop().time
        while not (self._closing.is_set() and not self._buffer):
            await self._wake.wait()
            self._wake.clear()
            begun = now()
            try:
                await self._flush()
            except LeaseLost:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), begun + FLUSH_SECONDS - now())

    async def _flush(self) -> None:
        """What comes meanwhile is of the next batch: a page paints four times a second, and each batch costs it one. Raises `LeaseLost`."""
        size, last = BATCH, self._seq
        while self._buffer and self._buffer[0].seq <= last:
            batch = [event for event in self._buffer[:size] if event.seq <= last]
            try:
                await self._sink.write(self._lease, batch)
            except LeaseLost:
                raise
            except EventsRefused:
                logger.exception("Events were refused", extra={"run_id": self._lease.run_id})
                if len(batch) == 1:
                    self._give_up_first()
                size = max(1, len(batch) // 2)
            except Exception:
                logger.exception("Events could not be stored; trying again", extra={"run_id": self._lease.run_id})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                del self._buffer[: len(batch)]
                size = BATCH

    def _give_up_first(self) -> None:
        """Refused alone, it makes room for a bare one; if that is refused too, its number is taken, and it is dropped."""
        event = self._buffer[0]
        if event.kind == LOST:
            del self._buffer[0]
        else:
            message = f"An event ({event.kind}) could not be stored; the worker's log says why"
            self._buffer[0] = replace(event, kind=LOST, level=Level.ERROR, message=message, client_id=None, data={})
