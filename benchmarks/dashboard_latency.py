"""`progress_to_pixel`: from a report of progress in the engine to the bar on the screen, while a hundred watch the run.

Clients report faster than pages are painted, so that most reports are superseded before anybody sees them: timed are those that are shown.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time

import psutil
from websockets.asyncio.client import connect
from websockets.typing import Origin

from benchmarks.dashboard_world import WatchedRun, chromium, open_page, wait_until, watched_run
from benchmarks.reporting import load, report

WATCHERS = 100
CLIENTS, ROUNDS = 20, 30
SECONDS = 20.0
REPORTS_A_SECOND = 4
"""Of each client: as many as an agent sends."""
STEPS = 1_000

# The moment, by the machine's clock, at which each state of the first client's bar was painted.
WATCH = """
window.seen = [];
window.watchBar = () => {
  const bar = document.querySelector('#live-list .phase');
  let last = null;
  new MutationObserver(() => {
    const value = bar.style.getPropertyValue('--t');
    if (value === last) return;
    last = value;
    requestAnimationFrame(() => setTimeout(() => window.seen.push([value, performance.timeOrigin + performance.now()])));
  }).observe(bar, { attributes: true });
};
"""


class Crowd:
    """WebSockets that read what comes, in a loop of their own."""

    def __init__(self, watched: WatchedRun, cookie: dict[str, str], count: int) -> None:
        self._address = watched.bench.stack.url.replace("http", "ws", 1) + f"/ws/runs/{watched.run.pk}/"
        self._origin = Origin(watched.bench.stack.url)
        self._headers = {"Cookie": f"{cookie['name']}={cookie['value']}"}
        self._count, self.frames, self.connected = count, 0, 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: list[asyncio.Task[None]] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._watch()))

    def __enter__(self) -> Crowd:
        self._thread.start()
        until = time.monotonic() + 60
        while self.connected < self._count:
            if time.monotonic() > until:
                raise SystemExit(f"Only {self.connected} of {self._count} sockets opened.")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None  # the thread has begun
        self._loop.call_soon_threadsafe(lambda: [socket.cancel() for socket in self._sockets])
        self._thread.join()

    async def _watch(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = [asyncio.create_task(self._one()) for _ in range(self._count)]
        await asyncio.gather(*self._sockets, return_exceptions=True)

    async def _one(self) -> None:
        async with connect(self._address, additional_headers=self._headers, origin=self._origin) as socket:
            self.connected += 1
            async for _ in socket:
                self.frames += 1


def measure() -> None:
    with watched_run(CLIENTS, ROUNDS) as watched:
        cookie = watched.cookie()
        web = psutil.Process(watched.bench.stack.children.named("web").process.pid)
        with chromium() as browser, Crowd(watched, cookie, WATCHERS - 1) as crowd:
            page = open_page(browser, watched, cookie, WATCH)
            page.goto(watched.path)
            wait_until(page, "document.querySelector('.live')?.dataset.state === 'live'")
            engine = Engine(watched)
            engine.start()
            wait_until(page, "document.querySelector('#live-title').textContent.endsWith('live')")
            page.evaluate("window.watchBar()")
            before, begun = web.cpu_times(), time.monotonic()
            engine.join()
            after, seconds = web.cpu_times(), time.monotonic() - begun
            seen = page.evaluate("window.seen")
            frames = crowd.frames
    cores = (after.user + after.system - before.user - before.system) / seconds
    latencies = sorted(at - engine.sent[value] for value, at in seen if value in engine.sent)
    p95 = latencies[int(len(latencies) * 0.95)]
    report(
        "progress_to_pixel", p95, "ms", statistics.median(latencies), ok=p95 < 400, against="median", painted=len(latencies),
        watchers=WATCHERS, frames_to_others=frames, clients=CLIENTS, reports_a_second=CLIENTS * REPORTS_A_SECOND,
        server_cores=round(cores, 3), load=load(),
        why_missed="up to 250 ms are the wait for a frame; storing it, telling a hundred and painting share two cores",
    )  # fmt: skip


class Engine(threading.Thread):
    """Reports of all clients; notes when each of the first one's was made."""

    def __init__(self, watched: WatchedRun) -> None:
        super().__init__()
        self._watched = watched
        self.sent: dict[str, float] = {}

    def run(self) -> None:
        asyncio.run(self._report())

    async def _report(self) -> None:
        log = self._watched.events()
        self._watched.round_started(log)
        pause = 1 / (CLIENTS * REPORTS_A_SECOND)
        first, *others = sorted(self._watched.clients, key=lambda client: client.name)
        ends, step = time.monotonic() + SECONDS, 0
        while time.monotonic() < ends:
            step += 1
            fraction = step % STEPS / STEPS
            self.sent[f"{fraction:.3f}"] = time.time() * 1000
            self._watched.progress(log, first, fraction)
            for client in others:
                await asyncio.sleep(pause)
                self._watched.progress(log, client, fraction)
            await asyncio.sleep(pause)
        await log.close()
