"""How many event streams one caller may have open, counted in the cache that all web processes share.

A place is a key of the cache that ends by itself: whoever holds it holds on to it again and again, so that a web process that dies
leaves none taken.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError

from fedui.errors import DomainError, ErrorCode

logger = logging.getLogger(__name__)

LIFE_SECONDS = 60
HOLD_EVERY = 15.0
RETRY_SECONDS = 15


class TooManyStreams(DomainError):
    """The caller has as many open as one may have."""

    code = ErrorCode.THROTTLED
    retry_after = RETRY_SECONDS

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"You have {limit} event streams open, and may have no more.",
            hint=f"Close one, then try again in {RETRY_SECONDS} s; /api/v1/runs/<id>/events has the same events without a stream.",
        )


@dataclass(frozen=True, slots=True)
class Place:
    key: str
    holder: str

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """It is taken until this ends, also while a reader that doesn't read holds the stream up."""
        keeper = asyncio.create_task(self._keep(), name="place of an event stream")
        try:
            yield
        finally:
            keeper.cancel()
            await self._give_back()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(HOLD_EVERY)
            try:
                await cache.aset(self.key, self.holder, LIFE_SECONDS)
            except RedisError as error:
                logger.warning("An event stream's place can't be held: the cache is away: %s", error)

    async def _give_back(self) -> None:
        try:
            if await cache.aget(self.key) == self.holder:
                await cache.adelete(self.key)
        except RedisError as error:
            logger.warning("An event stream's place can't be given back: the cache is away: %s", error)


def take_place(caller: str) -> Place:
    """One of the caller's. Raises `TooManyStreams`."""
    limit, holder = settings.API_STREAMS, secrets.token_hex(8)
    keys = [f"streams:{caller}:{number}" for number in range(limit)]
    taken = cache.get_many(keys)
    for key in keys:
        if key not in taken and cache.add(key, holder, LIFE_SECONDS):
            return Place(key, holder)
    raise TooManyStreams(limit)
