"""Whether live messages come through. While Redis is away the sockets of open pages stay open and nothing arrives on them: readers are
told so, and their pages ask for what there is until it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import Context
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from channels.layers import get_channel_layer

PING_SECONDS = 2.0
GOOD_PINGS = 2
"""After so many the layer counts as back: by then it has subscribed again to what it follows."""
_GROUP = "live.ping"  # nobody is in it


class Watcher(Protocol):
    async def tell_delayed(self, delayed: bool) -> None: ...


class DelayWatch:
    """Of one event loop. Looks while somebody wants to know."""

    def __init__(self) -> None:
        self._watchers: WeakSet[Watcher] = WeakSet()
        self._task: asyncio.Task[None] | None = None
        self._delayed = False

    def add(self, watcher: Watcher) -> None:
        self._watchers.add(watcher)
        if self._task is None or self._task.done():
            # It outlives the socket that begins it, and its log lines aren't about that one's run.
            self._task = asyncio.create_task(self._watch(), name="delay watch", context=Context())

    def remove(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        if not self._watchers and self._task:
            self._task.cancel()

    async def _watch(self) -> None:
        self._delayed, good = False, GOOD_PINGS
        while True:
            good = good + 1 if await _answers() else 0
            if self._delayed != (delayed := good < GOOD_PINGS if self._delayed else good == 0):
                self._delayed = delayed
                await self._tell()
            await asyncio.sleep(PING_SECONDS)

    async def _tell(self) -> None:
        for watcher in list(self._watchers):
            with contextlib.suppress(Exception):  # its socket may be closing
                await watcher.tell_delayed(self._delayed)


async def _answers() -> bool:
    layer: Any = get_channel_layer()
    try:
        async with asyncio.timeout(PING_SECONDS):
            await layer.group_send(_GROUP, {"type": "live.ping"})
    except Exception:  # whatever the layer's transport raises
        return False
    return True


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, DelayWatch] = WeakKeyDictionary()


def delay_watch() -> DelayWatch:
    return _watches.setdefault(asyncio.get_running_loop(), DelayWatch())
