"""What to do while the database is away: hold what there is to write, and try again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import InterfaceError, InternalError, OperationalError
from psycopg.errors import IdleInTransactionSessionTimeout

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0
"""Seconds between two tries, doubled each time."""


async def patiently(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work`, tried again for as long as the database can't be reached.

    The connection may have been lost after the commit and before the answer: `work` must bear being done twice.
    """
    delay = FIRST_DELAY
    while True:
        try:
            result: T = await database_sync_to_async(work)(*args, **kwargs)
            return result
        except (InterfaceError, OperationalError) as error:
            logger.warning("The database is away, trying again in %g s: %s", delay, error)
        except InternalError as error:
            if not isinstance(error.__cause__, IdleInTransactionSessionTimeout):
                raise
            logger.warning("The process stood still in a transaction, trying again in %g s: %s", delay, error)
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
