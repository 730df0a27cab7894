"""A run whose page is measured: its history in the database, its events from here as an engine would send them, and Chromium."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from aggregator.events import EventLog
from aggregator.ports import Lease
from benchmarks.federation import BenchmarkFederation, benchmark_federation

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from fedui.clients.models import Client
    from fedui.runs.models import Run

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
OWNER, FENCING = "benchmark", 1
SIGNATURE = [{"name": "w", "dtype": "float32", "shape": [64, 10]}]


@dataclass(frozen=True, slots=True)
class WatchedRun:
    bench: BenchmarkFederation
    run: Run
    clients: list[Client]

    @property
    def path(self) -> str:
        return f"/f/{self.bench.federation.slug}/runs/{self.run.pk}/"

    def cookie(self) -> dict[str, str]:
        from django.conf import settings
        from django.test import Client as Session

        session = Session()
        session.force_login(self.bench.operator)
        value = session.cookies[settings.SESSION_COOKIE_NAME].value
        return {"name": settings.SESSION_COOKIE_NAME, "value": value, "url": self.bench.stack.url}

    def events(self) -> EventLog:
        """As the engine has it, on the running loop."""
        from fedui.runs.adapters import DatabaseEventSink

        last = self.run.num_rounds and 2 * self.run.rounds_done
        return EventLog(Lease(self.run.pk, OWNER, FENCING), last, DatabaseEventSink())

    def round_started(self, log: EventLog) -> None:
        number = self.run.rounds_done + 1
        cohort = [{"id": str(client.pk), "name": client.name} for client in self.clients]
        data = {"attempt": 1, "cohort": cohort, "deadline_seconds": 600}
        log.emit("round.started", f"Round {number} started", round_number=number, data=data)

    def progress(self, log: EventLog, client: Client, fraction: float) -> None:
        words = {"round_number": self.run.rounds_done + 1, "client_id": str(client.pk)}
        log.emit("client.progress", "Progress", data={"phase": "training", "fraction": fraction}, **words)  # type: ignore[arg-type]


@contextmanager
def watched_run(clients: int, rounds: int) -> Iterator[WatchedRun]:
    """A run that is driven, to all appearances, in a platform that is up."""
    with benchmark_federation() as bench:
        from django.utils import timezone

        from aggregator.core.config import StrategyConfig
        from fedui.catalog.models import App
        from fedui.runs.models import Run, RunStatus
        from fedui.strategies.services import create_strategy
        from tests.support.run_world import Shape, with_history

        version = create_strategy(bench.federation, bench.operator, name="plain", config=StrategyConfig()).latest
        app = App.objects.create(federation=bench.federation, name="app", version="1", signature=SIGNATURE)
        now = timezone.now()
        run = Run.objects.create(
            federation=bench.federation, name="large", strategy_version=version, app=app, seed=1, num_rounds=rounds + 20,
            rounds_done=rounds, status=RunStatus.RUNNING, started_at=now - timedelta(minutes=rounds + 1),
            lease_owner=OWNER, lease_fencing=FENCING, lease_expires_at=now + timedelta(hours=2), created_by=bench.operator,
        )  # fmt: skip
        yield WatchedRun(bench, run, with_history(run, Shape(clients=clients, rounds=rounds)))


@contextmanager
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-precise-memory-info"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def open_page(browser: Browser, watched: WatchedRun, cookie: dict[str, str], script: str) -> Page:
    """A fresh browser, signed in; `script` runs before the page's own."""
    context = browser.new_context(base_url=watched.bench.stack.url, viewport={"width": 1440, "height": 900})
    context.add_cookies([cookie])  # type: ignore[list-item]
    page = context.new_page()
    page.add_init_script(script)
    return page


def wait_until(page: Page, condition: str, seconds: float = 60) -> None:
    """Asks again and again: Playwright's own way evaluates text, which the page's policy forbids."""
    until = time.monotonic() + seconds
    while not page.evaluate(condition):
        if time.monotonic() > until:
            raise SystemExit(f"The page did not come to: {condition}")
        page.wait_for_timeout(20)


def performance(page: Page) -> dict[str, float]:
    """Chromium's own counters of the page."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics: list[dict[str, Any]] = session.send("Performance.getMetrics")["metrics"]
    session.detach()
    return {metric["name"]: float(metric["value"]) for metric in metrics}


def heap_bytes(page: Page) -> int:
    """Of scripts, after a collection."""
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    return int(performance(page)["JSHeapUsedSize"])
