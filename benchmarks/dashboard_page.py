"""`run_page_500x1000`: how soon the page is of use, what a live frame costs, and what the page keeps."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import Any

from benchmarks.dashboard_world import WatchedRun, chromium, heap_bytes, open_page, performance, wait_until, watched_run
from benchmarks.reporting import load, report

CLIENTS, ROUNDS = 1_000, 500
LOADS = 3
LIVE_SECONDS = 10.0
REPORTS_A_SECOND = 400
"""Of all clients together: a thousand that report now and then."""

# When figures, chart and heatmap are drawn; and what each painted frame costs in script, style and layout.
WATCH = """
window.frames = []; window.useful = null;
const frame = requestAnimationFrame;
window.requestAnimationFrame = (callback) => frame((at) => {
  const begun = performance.now();
  callback(at);
  document.body.offsetHeight;
  window.frames.push(performance.now() - begun);
});
const look = () => {
  const there = document.querySelector('#metrics .main-svg') && document.querySelector('#by-round td')
    && document.querySelector('#timeline svg') && !document.querySelector('#kpi-accuracy .v')?.textContent.includes('–');
  if (there) frame(() => setTimeout(() => { window.useful = performance.now(); }));
  else frame(look);
};
frame(look);
"""


def measure() -> None:
    with watched_run(CLIENTS, ROUNDS) as watched:
        cookie = watched.cookie()
        live = threading.Thread(target=lambda: asyncio.run(_be_live(watched)))
        with chromium() as browser:
            useful, first = [], []
            for _ in range(LOADS):
                page = open_page(browser, watched, cookie, WATCH)
                page.goto(watched.path)
                wait_until(page, "window.useful !== null")
                useful.append(page.evaluate("window.useful"))
                cpu = performance(page).get("ThreadTime", 0.0)
                first.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                if len(useful) < LOADS:
                    page.context.close()
            wait_until(page, "document.querySelector('.live')?.dataset.state === 'live'")
            page.evaluate("window.frames = []")
            live.start()
            live.join()
            frames = sorted(page.evaluate("window.frames"))
            heap = heap_bytes(page)
    settings: dict[str, Any] = {"clients": CLIENTS, "rounds": ROUNDS, "load": load()}
    value = statistics.median(useful)
    report(
        "run_page_500x1000.first_useful_paint", value / 1000, "s", statistics.median(first) / 1000, ok=value < 2000,
        why_missed="4.8 MB of the chart library are read by the browser, and the snapshot takes the server half a second of a core",
        loads=LOADS, cpu_seconds=round(cpu, 2), against="first contentful paint", **settings,
    )  # fmt: skip
    p95 = frames[int(len(frames) * 0.95)]
    report(
        "run_page_500x1000.live_frame_p95", p95, "ms", frames[len(frames) // 2], ok=p95 < 50, frames=len(frames),
        longest=round(frames[-1], 1), reports_a_second=REPORTS_A_SECOND, against="median", **settings,
        why_missed="other work on this machine delays the browser",
    )  # fmt: skip
    report(
        "run_page_500x1000.heap",
        heap / 1e6,
        "MB",
        300,
        ok=heap < 300e6,
        against="the bar",
        after="a collection",
        **settings,
    )


async def _be_live(watched: WatchedRun) -> None:
    log = watched.events()
    watched.round_started(log)
    ends = time.monotonic() + LIVE_SECONDS
    count = 0
    while time.monotonic() < ends:
        for _ in range(REPORTS_A_SECOND // 20):
            watched.progress(log, watched.clients[count % CLIENTS], (count % 997) / 997)
            count += 1
        await asyncio.sleep(0.05)
    await log.close()
