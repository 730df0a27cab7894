from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from asgiref.sync import sync_to_async
from django.db import connections


@pytest.fixture(autouse=True)
async def no_connection_outlives_its_test() -> AsyncIterator[None]:
    """Asynchronous code queries from a thread of its own; PostgreSQL drops no database that a thread is connected to."""
    yield
    await sync_to_async(connections.close_all)()
