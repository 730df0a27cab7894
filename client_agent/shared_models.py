"""Models that the agents of one process download once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary


class SharedModels:
    """Keeps the model that was downloaded last: what a round evaluates, the next one trains."""

    def __init__(self) -> None:
        self._sha256 = ""
        self._content = b""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, sha256: str, download: Callable[[], Awaitable[bytearray]]) -> bytes:
        """One agent downloads, while those that want the same model wait for it. Nobody can change it: it is all of theirs."""
        turn = self._turns.setdefault(sha256, asyncio.Lock())
        async with turn:
            if self._sha256 != sha256:
                self._sha256, self._content = sha256, bytes(await download())
            return self._content
