"""Unmodified clients of Flower through the bridge, against the same clients with Flower's own servers."""

from __future__ import annotations

import contextlib
import json
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import psutil

from aggregator.core.config import CohortConfig, EvaluationConfig, StrategyConfig
from benchmarks.federation import BenchmarkFederation, benchmark_federation
from benchmarks.fleet_superlink import superlink_rounds
from benchmarks.reporting import load, report
from fedui.supervisor.stack import BIN
from tests.flower.environment import ENVIRONMENT, FLOWER, python_with_flower

if TYPE_CHECKING:
    from fedui.runs.models import Run

CLIENTS, SIZE, ROUNDS, WARM_UP = 10, 1_000_000, 10, 2
SUPERLINK_ROUNDS = 2
"""Besides the first."""
PHASES = ("train", "commit", "evaluate")
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


@dataclass(frozen=True, slots=True)
class Bridged:
    """Rounds through the bridge, without those of the warm-up."""

    seconds: Sequence[float]
    phases: Mapping[str, float]
    """The median seconds of each part of a round."""
    evaluated: int
    """Participations that have come to their end."""
    cpu: Mapping[str, float]
    """Seconds of processors a round, of the worker and of the bridge."""


def legacy_rounds(
    size: int = SIZE, rounds: int = ROUNDS, warm_up: int = WARM_UP, *, evaluate: bool = True
) -> list[float]:
    """The seconds of each round of Flower's own server with unmodified clients, those of the warm-up left out."""
    return _legacy(size, rounds, warm_up, evaluate=evaluate)[0]


def _legacy(
    size: int = SIZE, rounds: int = ROUNDS, warm_up: int = WARM_UP, *, evaluate: bool = True
) -> tuple[list[float], float]:
    """As `legacy_rounds`, and the seconds of processors that a round takes of the server."""
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
        cpu, times = said.splitlines()[-2:]
        return json.loads(times)[warm_up:], float(cpu)
    finally:
        server.kill()
        server.wait()


def bridged_rounds() -> Bridged:
    config = StrategyConfig(cohort=CohortConfig(min_clients=CLIENTS), evaluation=EvaluationConfig(server=False))
    address = _free_address()
    with benchmark_federation() as bench:
        bridge = _start_bridge(bench, address)
        _wait_for(address, bridge)
        with flower_clients(address):
            bench.wait_for_agents(CLIENTS, MAX_SECONDS)
            processes = {"worker": bench.stack.children.named("worker").process.pid, "bridge": bridge.pid}
            before = {name: _cpu_seconds(pid) for name, pid in processes.items()}
            run = bench.start_run("echo", config, ROUNDS + WARM_UP)
            bench.wait_for(run, MAX_SECONDS)
            rounds = run.rounds.count()
            cpu = {name: (_cpu_seconds(pid) - before[name]) / rounds for name, pid in processes.items()}
        return _measured(run, cpu)


def _measured(run: Run, cpu: Mapping[str, float]) -> Bridged:
    rounds = run.rounds.filter(number__gt=WARM_UP)
    moments = [(r.started_at, r.closed_at, r.committed_at, r.ended_at) for r in rounds]
    parts = [[(b - a).total_seconds() for a, b in pairwise(times) if a and b] for times in moments]
    complete = [part for part in parts if len(part) == len(PHASES)]
    phases = dict(zip(PHASES, map(statistics.median, zip(*complete, strict=True)), strict=True))
    evaluated = sum(r.participations.filter(outcome="completed", evaluation_loss__isnull=False).count() for r in rounds)
    return Bridged([sum(part) for part in complete], phases, evaluated, cpu)


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _start_bridge(bench: BenchmarkFederation, address: str) -> subprocess.Popen[bytes]:
    homes = bench.enrol(CLIENTS)
    places = [part for home in homes for part in ("--home", str(home))]
    command = [str(BIN / "fedagent"), "bridge", "--listen", address, "--app-name", "echo", *places]
    return bench.stack.children.start("bridge", command, {}).process


def measure() -> None:
    """The reference is taken before and after, so that what else the machine does falls on both."""
    legacy, legacy_cpu = _legacy()
    ours = bridged_rounds()
    legacy += legacy_rounds()
    value, reference = statistics.median(ours.seconds), statistics.median(legacy)
    expected = ROUNDS * CLIENTS
    report(
        "flower_bridge", value, "s", reference, ok=ours.evaluated == expected and value <= LEGACY_BAR * reference,
        against=f"start_server of {FLOWER}, no TLS, nothing stored", clients=CLIENTS, parameters=SIZE, rounds=len(ours.seconds),
        completed=ours.evaluated, expected=expected, slowest=round(max(ours.seconds), 4), bar=LEGACY_BAR, load=load(),
        phases={name: round(seconds, 3) for name, seconds in ours.phases.items()},
        cpu={name: round(seconds, 3) for name, seconds in ours.cpu.items()}, legacy_cpu=round(legacy_cpu, 3),
        why_missed=f"a round takes {ours.cpu['worker']:.2f} s of processors at the worker and {ours.cpu['bridge']:.2f} s at the bridge, "
        f"where start_server takes {legacy_cpu:.2f} s: each update passes twice, through Flower's stream and then over TLS, hashed at "
        "both ends, in files of agent and server and in the owner's log, and what happens of it in the database",
    )  # fmt: skip
    _against_superlink(value)


def _against_superlink(value: float) -> None:
    """Its processes need minutes for a few rounds. The first one counts where no other has ended in time; where none has, each is taken
    for no longer than its share of that time."""
    times = superlink_rounds(CLIENTS, SIZE, SUPERLINK_ROUNDS + 1, MAX_SECONDS)
    reference = statistics.median(times[1:] or times or [MAX_SECONDS / (SUPERLINK_ROUNDS + 1)])
    report(
        "flower_bridge.superlink", value, "s", reference, ok=reference >= SUPERLINK_BAR * value, clients=CLIENTS, parameters=SIZE,
        rounds=SUPERLINK_ROUNDS + 1, ended=[round(seconds, 1) for seconds in times], times_as_fast=round(reference / value, 1),
        bar=SUPERLINK_BAR, load=load(),
        against=f"SuperLink and {CLIENTS} SuperNodes of {FLOWER}, no TLS, a process for each message; its first round counts if alone",
        why_missed=f"a round takes {value:.2f} s through the bridge, {reference:.1f} s with the SuperLink, which starts {2 * CLIENTS} "
        "processes for it",
    )  # fmt: skip


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def _wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Until it listens: Flower's client gives up at once where nobody does."""
    host, _, port = address.partition(":")
    end = time.monotonic() + MAX_SECONDS
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.1)
    raise SystemExit(f"Flower's server has ended, or doesn't listen after {MAX_SECONDS:.0f} s.")
