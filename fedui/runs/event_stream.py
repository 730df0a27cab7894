"""A run's events as text for `EventSource`. The database is the truth; the channel layer only says when to look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer

from fedui.api.places import Place
from fedui.runs import live
from fedui.runs.models import Event, Run
from fedui.runs.serialize import event_payload

AT_ONCE = 500
ALIVE_EVERY = 15.0
"""Seconds without a word, after which a comment is sent: proxies cut what is silent, and a reader who has gone is noticed."""
RETRY_MS = 3000


async def event_stream(run_id: int, after: int, may_read: Callable[[], bool], place: Place) -> AsyncIterator[str]:
    """Until the run has ended, or `may_read` says no, or the reader has gone: then the place is free again."""
    async with place.held(), aclosing(_told(run_id, after, may_read)) as told:
        async for text in told:
            yield text


async def _told(run_id: int, after: int, may_read: Callable[[], bool]) -> AsyncGenerator[str]:
    layer: Any = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(live.run_group(run_id), channel)
    try:
        yield f"retry: {RETRY_MS}\n\n"
        while await database_sync_to_async(may_read)():
            ended = await database_sync_to_async(_has_ended)(run_id)  # before the events: none comes after the end
            while events := await database_sync_to_async(_events)(run_id, after):
                yield "".join(map(_framed, events))
                after = events[-1]["seq"]
            if ended:
                yield "event: end\ndata: {}\n\n"
                return
            if not await _woken(layer, channel):
                yield ": alive\n\n"
    finally:
        await layer.group_discard(live.run_group(run_id), channel)


def _framed(event: dict[str, Any]) -> str:
    return f"id: {event['seq']}\nevent: run\ndata: {json.dumps(event, separators=(',', ':'))}\n\n"


def _events(run_id: int, after: int) -> list[dict[str, Any]]:
    return [event_payload(event) for event in Event.objects.filter(run_id=run_id, seq__gt=after)[:AT_ONCE]]


def _has_ended(run_id: int) -> bool:
    run = Run.objects.filter(pk=run_id).first()
    return run is None or run.is_terminal


async def _woken(layer: Any, channel: str) -> bool:
    """Whether something was said before it was time to show that one is alive."""
    try:
        await asyncio.wait_for(layer.receive(channel), ALIVE_EVERY)
    except TimeoutError:
        return False
    return True
