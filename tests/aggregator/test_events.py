"""The event log: numbered without a gap, stored in order, whatever the sink does."""

import asyncio
from collections.abc import Sequence

import pytest

from aggregator import events
from aggregator.events import EventLog
from aggregator.ports import Event, EventsRefused, Lease, LeaseLost

LEASE = Lease(1, "me", 1)


class Sink:
    def __init__(self, failures: int = 0, lost: bool = False) -> None:
        self.failures, self.lost = failures, lost
        self.batches: list[list[Event]] = []

    async def write(self, lease: Lease, batch: Sequence[Event]) -> None:
        if self.lost:
            raise LeaseLost
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the database is away")
        if any(event.data.get("bad") for event in batch):
            raise EventsRefused("no JSON")
        if set(self.seqs) & {event.seq for event in batch}:
            raise EventsRefused("not unique")
        self.batches.append(list(batch))

    @property
    def seqs(self) -> list[int]:
        return [event.seq for batch in self.batches for event in batch]


async def test_numbers_go_on_from_the_last_one_and_batches_keep_their_order() -> None:
    sink = Sink()
    log = EventLog(LEASE, 41, sink)
    for i in range(1200):
        log.emit("client.progress", f"{i}")
    await log.close()
    assert sink.seqs == list(range(42, 42 + 1200))
    assert max(map(len, sink.batches)) <= events.BATCH


async def test_a_sink_that_fails_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RETRY_SECONDS", 0.001)
    sink = Sink(failures=3)
    log = EventLog(LEASE, 0, sink)
    log.emit("a", "one")
    log.emit("b", "two")
    await log.close()
    assert sink.seqs == [1, 2]


async def test_what_comes_while_a_batch_is_stored_waits_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FLUSH_SECONDS", 3600.0)

    class Slow(Sink):
        async def write(self, lease: Lease, batch: Sequence[Event]) -> None:
            if not self.batches:
                log.emit("b", "meanwhile")
                log.emit("c", "meanwhile")
            await super().write(lease, batch)

    sink = Slow()
    log = EventLog(LEASE, 0, sink)
    log.emit("a", "first")
    while not sink.batches:
        await asyncio.sleep(0)
    assert sink.seqs == [1]
    await log.close()
    assert [[event.seq for event in batch] for batch in sink.batches] == [[1], [2, 3]]


async def test_the_first_event_goes_at_once_and_those_that_follow_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "FLUSH_SECONDS", 3600.0)
    sink = Sink()
    log = EventLog(LEASE, 0, sink)
    log.emit("a", "one")
    async with asyncio.timeout(5):
        while not sink.batches:
            await asyncio.sleep(0)
    log.emit("b", "two")
    log.emit("c", "three")
    for _ in range(20):
        await asyncio.sleep(0)
    assert sink.seqs == [1]
    await log.close()
    assert sink.seqs == [1, 2, 3]


async def test_a_lost_lease_ends_the_log() -> None:
    sink = Sink(lost=True)
    log = EventLog(LEASE, 0, sink)
    log.emit("a", "one")
    async with asyncio.timeout(5):
        await log.close()
    assert sink.batches == []


async def test_an_event_that_is_refused_leaves_its_number_to_one_that_says_so() -> None:
    sink = Sink()
    log = EventLog(LEASE, 0, sink)
    for number in range(1, 1001):
        log.emit("client.progress", f"{number}", client_id="a", data={"bad": number in (3, 700)})
    async with asyncio.timeout(5):
        await log.close()
    assert sink.seqs == list(range(1, 1001))
    lost = [event for batch in sink.batches for event in batch if event.kind == "event.lost"]
    assert [(event.seq, event.level, event.client_id, event.data) for event in lost] == [
        (3, "error", None, {}),
        (700, "error", None, {}),
    ]
    assert "client.progress" in lost[0].message


async def test_events_that_are_stored_already_are_dropped() -> None:
    """As when the connection went after the commit and before its answer."""
    sink = Sink()
    earlier = EventLog(LEASE, 0, sink)
    earlier.emit("a", "one")
    await earlier.close()
    log = EventLog(LEASE, 0, sink)
    log.emit("a", "one")
    log.emit("b", "two")
    async with asyncio.timeout(5):
        await log.close()
    assert sink.seqs == [1, 2]
