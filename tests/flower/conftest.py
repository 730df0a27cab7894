from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client_agent.flower import bridge
from client_agent.flower.offer import Offer
from client_agent.identity import Enrolment, Home, Identity
from tests.aggregator.conftest import Federation
from tests.flower import environment


@pytest.fixture(scope="session")
def flower() -> Path:
    """A Python that has Flower and what an agent needs."""
    try:
        return environment.python_with_flower()
    except (OSError, subprocess.CalledProcessError) as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"Flower can't be installed here: {error}")


class Sites:
    """Flower clients as processes, which end with the test."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._python = python
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, kind: str, address: str, step: float = 0.0) -> int:
        """The number of the new process."""
        number = len(self.processes)
        command = [str(self._python), "-m", "tests.flower.site", kind, address, str(step)]
        with self._log(number).open("wb") as log:
            process = subprocess.Popen(command, env=environment.ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return number

    def said(self, number: int) -> str:
        return self._log(number).read_text()

    async def end(self, number: int) -> int:
        """Wait for its end; the exit code."""
        return await asyncio.to_thread(self.processes[number].wait, 30)

    def _log(self, number: int) -> Path:
        return self._folder / f"site-{number}.log"


@pytest.fixture
def sites(flower: Path, tmp_path: Path) -> Iterator[Sites]:
    sites = Sites(flower, tmp_path)
    yield sites
    for process in sites.processes:
        process.kill()
        process.wait()


class Bridges:
    """Bridges with enrolled identities, in the test's event loop."""

    def __init__(self, federation: Federation, folder: Path) -> None:
        self._federation = federation
        self._folder = folder
        self._running: list[asyncio.Task[None]] = []

    async def start(self, *names: str, offer: Offer | None = None) -> str:
        """With a place for each name. The address for Flower clients."""
        address = f"127.0.0.1:{_free_port()}"
        serving = bridge.serve(
            bridge.Listen(address),
            [self.enrolled(name) for name in names],
            offer or Offer("toy", "1", ["weights", "count"]),
            max_delay=0.05,
        )
        self._running.append(asyncio.create_task(serving))
        return address

    def enrolled(self, name: str) -> Home:
        self._federation.registry.add(name)
        key, certificate = self._federation.authority.key_and_certificate(name)
        expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        address = f"127.0.0.1:{self._federation.engine.port}"
        home = Home(self._folder / name)
        enrolment = Enrolment(name, name, "tests", "http://x", address, expiry)
        home.save(Identity(enrolment, key, certificate, self._federation.authority.pem))
        return home

    async def stop(self) -> None:
        while self._running:
            task = self._running.pop()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def federation() -> AsyncIterator[Federation]:
    federation = Federation()
    await federation.start()
    yield federation
    await federation.close()


@pytest.fixture
async def bridges(federation: Federation, tmp_path: Path) -> AsyncIterator[Bridges]:
    bridges = Bridges(federation, tmp_path)
    yield bridges
    await bridges.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
