"""A thousand agents: what they cost the server while they are idle, in a run of a hundred of them, and when all come back at once.

On PostgreSQL, in a database of its own on the server at FLEET_DATABASE_URL; where none answers, on SQLite. FLEET_AGENTS=100 makes it
smaller, for a try.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

import psutil
import psycopg

from aggregator.core.config import CohortConfig, EvaluationConfig, StrategyConfig
from benchmarks.federation import BenchmarkFederation, benchmark_federation
from benchmarks.fleet_load import Load
from benchmarks.reporting import report
from benchmarks.timing import peak_of, reset_peak
from fedui.supervisor.stack import BASE_DIR

AGENTS = int(os.environ.get("FLEET_AGENTS", "1000"))
COHORT = min(100, AGENTS)
SIZE, ROUNDS = 100_000, 3
WATCHED_SECONDS = 60.0
MOST_MB, MOST_CORES = 600, 1.0
COME_BACK_SECONDS = 180.0
MAINTENANCE = os.environ.get("FLEET_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")


class LoadProcess:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tally(self) -> dict[str, Any]:
        """What the agents have seen since this was last asked."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def wait_for_all(self, seconds: float) -> Arrival:
        """Returns when all are connected, or after so many seconds."""
        begun, arrival = time.monotonic(), Arrival()
        while arrival.connected < AGENTS and arrival.seconds < seconds:
            if arrival.seconds:
                time.sleep(1)
            arrival.note(self.tally(), time.monotonic() - begun)
        return arrival


@dataclass
class Arrival:
    """How agents came."""

    connected: int = 0
    seconds: float = 0.0
    first: float = 0.0
    """When one of them was connected."""
    attempts: int = 0
    most: int = 0
    """Attempts in a second."""
    errors: Counter[str] = field(default_factory=Counter)

    def note(self, seen: Mapping[str, Any], seconds: float) -> None:
        self.connected, self.seconds = seen["connected"], seconds
        if self.connected and not self.first:
            self.first = seconds
        self.attempts += seen["attempts"]
        self.most = max(self.most, seen["attempts"])
        self.errors.update(seen["errors"])

    def why_not_all(self) -> str:
        if self.connected == AGENTS:
            tries = self.attempts / AGENTS
            return f"an agent tried {tries:.1f} times, for the server took its first one only {self.first:.0f} s after it had been ended"
        met = ", ".join(f"{count} times {error}" for error, count in self.errors.most_common(3))
        return f"{self.connected} of {AGENTS} agents had come after {self.seconds:.0f} s; they met {met or 'nothing'}"


def measure() -> None:
    with own_database() as database, benchmark_federation() as bench, load_process(bench) as load:
        worker = _worker(bench)
        if (arrival := load.wait_for_all(COME_BACK_SECONDS)).connected < AGENTS:
            raise SystemExit(f"Nothing can be measured: {arrival.why_not_all()}.")
        reset_peak(worker)
        watched = _watch(bench, load, worker)
        peak = peak_of(worker) / 1e6
        ok = watched["late"] == 0 and watched["cores"] < MOST_CORES and peak < MOST_MB
        report(
            "agents_1000", watched.pop("cores"), "cores", MOST_CORES, ok=ok, agents=AGENTS, cohort=COHORT, parameters=SIZE, rounds=ROUNDS,
            peak_rss_mb=round(peak), most_rss_mb=MOST_MB, database=database, seconds=WATCHED_SECONDS, **watched,
            against="one core; no agent that beats may be late, in the database or to the server",
        )  # fmt: skip
        _restart(bench)
        back = load.wait_for_all(COME_BACK_SECONDS)
        report(
            "agents_1000.come_back", back.seconds, "s", COME_BACK_SECONDS, ok=back.connected == AGENTS and back.attempts <= 5 * AGENTS,
            agents=AGENTS, connected=back.connected, first_seconds=round(back.first, 1), attempts=back.attempts,
            most_attempts_a_second=back.most, database=database, errors=dict(back.errors),
            against="the time after which it has failed; the new server's start is included",
            why_missed=back.why_not_all(),
        )  # fmt: skip


def _watch(bench: BenchmarkFederation, load: LoadProcess, worker: psutil.Process) -> dict[str, Any]:
    """Over a minute in which the run takes place."""
    from fedui.clients.models import Client

    load.tally()
    config = StrategyConfig(
        cohort=CohortConfig(min_clients=COHORT, fraction=COHORT / AGENTS),
        evaluation=EvaluationConfig(federated=False, server=False),
    )
    begun, before, late = time.monotonic(), _cpu_seconds(worker), 0
    run = bench.start_run("echo", config, ROUNDS)
    while time.monotonic() < begun + WATCHED_SECONDS:
        late = max(late, Client.objects.filter(connected=True).count() - Client.objects.online().count())
        time.sleep(1)
    cores = (_cpu_seconds(worker) - before) / (time.monotonic() - begun)
    bench.wait_for(run, 120)
    seen = load.tally()
    times = [(r.ended_at - r.started_at).total_seconds() for r in run.rounds.all() if r.ended_at]
    return {
        "cores": cores,
        "late": late + seen["declared_late"],
        "slowest_answer_seconds": round(seen["slowest_answer"], 3),
        "slowest_round_seconds": round(max(times), 2),
        "errors": seen["errors"],
    }


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _worker(bench: BenchmarkFederation) -> psutil.Process:
    return psutil.Process(bench.stack.children.named("worker").process.pid)


def _restart(bench: BenchmarkFederation) -> None:
    """As an operator does, or an upgrade: it says goodbye, ends, and is started again."""
    worker = bench.stack.children.named("worker")
    worker.process.terminate()
    worker.process.wait(COME_BACK_SECONDS)
    while not bench.stack.children.revive():
        time.sleep(0.1)


@contextmanager
def load_process(bench: BenchmarkFederation) -> Iterator[LoadProcess]:
    file = bench.stack.data_dir / "load.json"
    file.write_text(json.dumps(asdict(_load(bench))))
    command = [sys.executable, "-m", "benchmarks.fleet_load", str(file)]
    with subprocess.Popen(command, cwd=BASE_DIR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield LoadProcess(process)
        process.terminate()


def _load(bench: BenchmarkFederation) -> Load:
    """As many clients as there are agents, without the minutes that admitting each would take."""
    from django.db import transaction

    from client_agent.certificates import new_key, private_pem, signing_request
    from fedui.clients import pki
    from fedui.clients.authorities import trust
    from fedui.clients.models import Client

    identities = []
    with transaction.atomic():
        rows = [Client(federation=bench.federation, name=f"site-{n:04d}", number=n + 1) for n in range(AGENTS)]
        for client in Client.objects.bulk_create(rows):
            key = new_key()
            certificate = pki.issue_client_certificate(signing_request(key, client.name).decode(), client)
            identities.append((private_pem(key).decode(), certificate.pem))
    address = f"127.0.0.1:{bench.stack.grpc_port}"
    return Load(address, trust().bundle_pem.decode(), "echo", SIZE, identities)


@contextmanager
def own_database() -> Iterator[str]:
    """What kind it is. The processes that are started meanwhile find it in DATABASE_URL."""
    name = f"fedui_bench_{uuid4().hex[:8]}"
    try:
        _execute(f'CREATE DATABASE "{name}"')
    except psycopg.OperationalError:
        yield "SQLite"
        return
    os.environ["DATABASE_URL"] = f"{MAINTENANCE.rpartition('/')[0]}/{name}"
    try:
        yield "PostgreSQL"
    finally:
        from django.db import connections

        connections.close_all()
        _execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _execute(statement: str) -> None:
    with psycopg.connect(
        MAINTENANCE.replace("postgres://", "postgresql://"), autocommit=True, connect_timeout=5
    ) as connection:
        connection.execute(statement)
