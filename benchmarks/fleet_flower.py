"""Unmodified clients of Flower through the bridge, against the same clients with Flower's own servers."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aggregator.core.config import CohortConfig, EvaluationConfig, StrategyConfig
from benchmarks.federation import BenchmarkFederation, benchmark_federation
from benchmarks.fleet_superlink import superlink_rounds
from benchmarks.reporting import report
from fedui.supervisor.stack import BIN
from tests.flower.environment import ENVIRONMENT, FLOWER, python_with_flower

CLIENTS, SIZE, ROUNDS, WARM_UP = 10, 1_000_000, 10, 2
SUPERLINK_ROUNDS = 2
LEGACY_BAR, SUPERLINK_BAR = 1.3, 30
"""At most so many times the legacy server's time; at least so many times as fast as the SuperLink."""
MAX_SECONDS = 300


@contextmanager
def flower_clients(address: str, size: int = SIZE) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [str(python_with_flower()), "-m", "benchmarks.flower_client", address, str(size)]
    clients = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(CLIENTS)
    ]
    try:
        yield clients
    finally:
        for client in clients:
            client.kill()
            client.wait()


def legacy_rounds(
    size: int = SIZE, rounds: int = ROUNDS, warm_up: int = WARM_UP, *, evaluate: bool = True
) -> list[float]:
    """The seconds of each round of Flower's own server with unmodified clients, those of the warm-up left out."""
    address = _free_address()
    arguments = [address, str(CLIENTS), str(rounds + warm_up), str(float(evaluate))]
    server = subprocess.Popen(
        [str(python_with_flower()), "-m", "benchmarks.flower_server", *arguments],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(address, server)
        with flower_clients(address, size):
            said, _ = server.communicate(timeout=MAX_SECONDS)
        times: list[float] = json.loads(said.splitlines()[-1])
        return times[warm_up:]
    finally:
        server.kill()
        server.wait()


def bridged_rounds() -> tuple[list[float], int]:
    """Seconds, and how many participations have come to their end."""
    config = StrategyConfig(cohort=CohortConfig(min_clients=CLIENTS), evaluation=EvaluationConfig(server=False))
    address = _free_address()
    with benchmark_federation() as bench:
        bridge = _start_bridge(bench, address)
        _wait_for(address, bridge)
        with flower_clients(address):
            bench.wait_for_agents(CLIENTS, MAX_SECONDS)
            run = bench.start_run("echo", config, ROUNDS + WARM_UP)
            bench.wait_for(run, MAX_SECONDS)
        rounds = run.rounds.filter(number__gt=WARM_UP)
        times = [(r.ended_at - r.started_at).total_seconds() for r in rounds if r.ended_at is not None]
        evaluated = sum(
            r.participations.filter(outcome="completed", evaluation_loss__isnull=False).count() for r in rounds
        )
        return times, evaluated


def _start_bridge(bench: BenchmarkFederation, address: str) -> subprocess.Popen[bytes]:
    homes = bench.enrol(CLIENTS)
    places = [part for home in homes for part in ("--home", str(home))]
    command = [str(BIN / "fedagent"), "bridge", "--listen", address, "--app-name", "echo", *places]
    return bench.stack.children.start("bridge", command, {}).process


def measure() -> None:
    """The reference is taken before and after, so that what else the machine does falls on both."""
    legacy = legacy_rounds()
    ours, completed = bridged_rounds()
    legacy += legacy_rounds()
    value, reference = statistics.median(ours), statistics.median(legacy)
    expected = ROUNDS * CLIENTS
    report(
        "flower_bridge", value, "s", reference, ok=completed == expected and value <= LEGACY_BAR * reference,
        against=f"start_server of {FLOWER}, no TLS, nothing stored", clients=CLIENTS, parameters=SIZE, rounds=len(ours),
        completed=completed, expected=expected, slowest=round(max(ours), 4), bar=LEGACY_BAR,
        why_missed="each update passes twice: through Flower's own stream on loopback, then over TLS, hashed, listed and spooled",
    )  # fmt: skip
    _against_superlink(value)


def _against_superlink(value: float) -> None:
    """Its processes need minutes for a few rounds. If they come to no end in time, each has taken more than its share of it."""
    times = superlink_rounds(CLIENTS, SIZE, SUPERLINK_ROUNDS, MAX_SECONDS)
    reference = statistics.median(times) if times else MAX_SECONDS / (SUPERLINK_ROUNDS + 1)
    report(
        "flower_bridge.superlink", value, "s", reference, ok=reference >= SUPERLINK_BAR * value, clients=CLIENTS, parameters=SIZE,
        rounds=SUPERLINK_ROUNDS, ended=bool(times), times_as_fast=round(reference / value, 1), bar=SUPERLINK_BAR,
        against=f"SuperLink and {CLIENTS} SuperNodes of {FLOWER}, no TLS, a process for each message, the first round left out",
        why_missed="the bridge's round is bound by what two cores hash and copy, the SuperLink's mostly by the start of processes",
    )  # fmt: skip


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Until it listens: Flower's client gives up at once where nobody does."""
    host, _, port = address.partition(":")
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.1)
    raise SystemExit("Flower's server has ended.")
