"""A scripted server, and agents that run against it in the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest

from client_agent import agent
from client_agent.hosting import HostedApps, host
from client_agent.identity import Home
from client_agent.sdk import App, Context
from tests.client_agent.api import EnrolmentApi
from tests.client_agent.pki import Authority
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import Launch, ToyClient

collect_ignore = [] if find_spec("torch") else ["test_torch.py"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if collect_ignore:
        terminalreporter.line("Left out, because torch is not installed: tests/client_agent/test_torch.py", yellow=True)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def api(authority: Authority) -> Iterator[EnrolmentApi]:
    api = EnrolmentApi(authority)
    api.start()
    yield api
    api.stop()


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer(authority)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def client() -> ToyClient:
    return ToyClient()


@pytest.fixture
def apps(client: ToyClient) -> HostedApps:
    app = App("toy", "1.0", "numpy", lambda context: client, ["weight"])
    return {("toy", "1.0"): host(app, Context("site-1"))}


@pytest.fixture
async def launch(server: ScriptedServer, apps: HostedApps, tmp_path: Path) -> AsyncIterator[Launch]:
    """Starts an agent, which ends with the test."""
    running: list[asyncio.Task[None]] = []

    def start(
        apps: HostedApps = apps, life: timedelta = timedelta(hours=1), authority: Authority = server.authority
    ) -> asyncio.Task[None]:
        home = Home(tmp_path / "home")
        identity = authority.identity(server.address, life=life)
        home.save(identity)
        running.append(asyncio.create_task(agent.serve(home, identity, apps, max_delay=0.05)))
        return running[-1]

    yield start
    for task in running:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
