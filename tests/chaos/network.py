"""The network between agents and server: a TCP relay that can be cut, and that can swallow what is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

CHUNK = 64 * 1024


class Network:
    """For each of the `ports` listens on one of its own (`self.ports`) and relays to it, in a thread."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._links: set[asyncio.Task[None]] = set()
        self._open = True
        self._flowing = asyncio.Event()
        threading.Thread(target=self._loop.run_forever, name="network", daemon=True).start()
        self._flowing.set()
        self.ports: dict[int, int] = {port: self._run(self._listen(port)) for port in ports}

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        self._run(self._cut())

    def mend(self) -> None:
        self._run(self._mend())

    def swallow(self) -> None:
        """Connections stay, and nothing goes through: what a pulled cable looks like."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, to: int) -> int:
        server = await asyncio.start_server(partial(self._relay, to), "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    async def _cut(self) -> None:
        self._open = False
        for link in self._links:
            link.cancel()

    async def _mend(self) -> None:
        """What was swallowed is lost: whoever was connected is cut, and may come back."""
        if not self._flowing.is_set():
            await self._cut()
        self._open = True
        self._flowing.set()

    async def _relay(self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            if self._open:
                there, back = await asyncio.open_connection("127.0.0.1", to)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, back))
                    both.create_task(self._pump(there, writer))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            self._links.discard(link)
            writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK):
                await self._flowing.wait()
                sink.write(data)
                await sink.drain()
        finally:
            sink.transport.abort()
        raise ConnectionResetError  # one side has ended: so has the other
