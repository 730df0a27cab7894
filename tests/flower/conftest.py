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
        """One of `tests.flower.site`. The number of the new process."""
        return self._start(self._folder, "tests.flower.site", kind, address, str(step))

    def start_agent(self, home: Home, folder: Path, *options: str) -> int:
        """An agent that is started in `folder`."""
        return self._start(folder, "client_agent.cli", "run", "--home", str(home.path), *options)

    def _start(self, folder: Path, module: str, *arguments: str) -> int:
        number = len(self.processes)
        command = [str(self._python), "-m", module, *arguments]
        with self._log(number).open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, env=environment.ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT
            )
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


def enrol(federation: Federation, folder: Path, name: str) -> Home:
    federation.registry.add(name)
    key, certificate = federation.authority.key_and_certificate(name)
    expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    home = Home(folder / name)
    enrolment = Enrolment(name, name, "tests", "http://x", f"127.0.0.1:{federation.engine.port}", expiry)
    home.save(Identity(enrolment, key, certificate, federation.authority.pem))
    return home


async def online(federation: Federation, *names: str) -> None:
    async with asyncio.timeout(100):  # each site imports all of Flower first
        while set(federation.registry.online) != set(names):
            await asyncio.sleep(0.02)


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
            [bridge.Place(enrol(self._federation, self._folder, name)) for name in names],
            offer or Offer("toy", "1", ["weights", "count"]),
            max_delay=0.05,
        )
        self._running.append(asyncio.create_task(serving))
        return address

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
