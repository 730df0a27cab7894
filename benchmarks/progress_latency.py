"""From an agent's `report_progress` to the browser's WebSocket, against a bare hop over the same Redis."""

from __future__ import annotations

import json
import statistics
import threading
import time
from typing import TYPE_CHECKING

import redis
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from aggregator.core.config import CohortConfig, EvaluationConfig, FaultsConfig, StrategyConfig
from benchmarks.federation import BenchmarkFederation, benchmark_federation
from benchmarks.reporting import report

if TYPE_CHECKING:
    from fedui.runs.models import Run

REPORTS, PAUSE = 60, 0.3


def open_socket(bench: BenchmarkFederation, run: Run) -> ClientConnection:
    from django.conf import settings
    from django.test import Client

    browser = Client()
    browser.force_login(bench.operator)
    cookie = f"{settings.SESSION_COOKIE_NAME}={browser.cookies[settings.SESSION_COOKIE_NAME].value}"
    address = bench.stack.url.replace("http", "ws", 1) + f"/ws/runs/{run.pk}/"
    return connect(address, additional_headers={"Cookie": cookie}, origin=Origin(bench.stack.url))


def latencies(socket: ClientConnection) -> list[float]:
    """Seconds, of every progress event until the run ends. Both clocks are this machine's monotonic one."""
    seconds = []
    while True:
        frame = json.loads(socket.recv(timeout=60))
        now = time.monotonic()
        for event in frame.get("events", []):
            if sent := event["data"].get("metrics", {}).get("sent") if event["kind"] == "client.progress" else None:
                seconds.append(now - sent)
            if event["kind"] == "run.finished":
                return seconds


def bare_hop(url: str) -> float:
    """Median seconds from PUBLISH to a subscriber."""
    seconds: list[float] = []
    subscriber = redis.Redis.from_url(url).pubsub()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    subscriber.subscribe("benchmark")
    subscriber.get_message(timeout=5)

    def listen() -> None:
        for message in subscriber.listen():
            seconds.append(time.monotonic() - float(message["data"]))
            if len(seconds) == REPORTS:
                return

    listener = threading.Thread(target=listen)
    listener.start()
    publisher = redis.Redis.from_url(url)
    for _ in range(REPORTS):
        publisher.publish("benchmark", time.monotonic())
        time.sleep(0.01)
    listener.join()
    return statistics.median(seconds)


def main() -> None:
    config = StrategyConfig(
        cohort=CohortConfig(min_clients=1),
        faults=FaultsConfig(quorum=1),
        evaluation=EvaluationConfig(federated=False, server=False),
    )
    with benchmark_federation() as bench:
        bench.start_agents(1, "clock", {"reports": REPORTS, "pause": PAUSE})
        run = bench.start_run("clock", config, 1)
        with open_socket(bench, run) as socket:
            seconds = sorted(latencies(socket))
        reference = bare_hop(bench.stack.environment["REDIS_URL"])
    for name, value in (("p50", statistics.median(seconds)), ("p95", seconds[int(len(seconds) * 0.95)])):
        report(
            f"progress_latency.{name}",
            value * 1000,
            "ms",
            reference * 1000,
            reports=len(seconds),
            pause_seconds=PAUSE,
            against="p50 of PUBLISH to a subscriber on the same Redis",
        )


if __name__ == "__main__":
    main()
