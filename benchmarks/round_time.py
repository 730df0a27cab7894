"""The time of a round without training, through all of the platform, against bare sockets that move the same bytes."""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import threading
import time

from aggregator.core.config import CohortConfig, EvaluationConfig, StrategyConfig
from benchmarks.federation import benchmark_federation
from benchmarks.reporting import report

ROUNDS, WARM_UP = 12, 2
CASES = ((2, 1), (10, 1_000_000))
"""Clients, float32 parameters."""


def bare_round(clients: int, size: int) -> float:
    """Seconds in which each client gets the model from one server and sends it back, in parallel, over loopback TCP."""
    model = bytes(4 * size)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads = [
            threading.Thread(target=work, args=arguments)
            for _ in range(clients)
            for work, arguments in ((_serve, (server, model)), (_echo, (server.getsockname(), len(model))))
        ]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun


def _serve(server: socket.socket, model: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(model)
        _receive(connection, len(model))


def _echo(address: tuple[str, int], size: int) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(_receive(connection, size))


def _receive(connection: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        view = view[connection.recv_into(view) :]
    return buffer


def measure(clients: int, size: int) -> None:
    config = StrategyConfig(
        cohort=CohortConfig(min_clients=clients), evaluation=EvaluationConfig(federated=False, server=False)
    )
    with benchmark_federation() as bench:
        bench.start_agents(clients, "echo", {"size": size})
        run = bench.start_run("echo", config, ROUNDS)
        bench.wait_for(run, 300)
        times = [
            (r.ended_at - r.started_at).total_seconds()
            for r in run.rounds.filter(number__gt=WARM_UP)
            if r.ended_at is not None
        ]
    reference = statistics.median(bare_round(clients, size) for _ in range(5))
    report(
        f"round_time.{clients}x{size}",
        statistics.median(times),
        "s",
        reference,
        clients=clients,
        parameters=size,
        rounds=len(times),
        slowest=round(max(times), 4),
        against="bare loopback sockets, same bytes, no TLS, nothing stored",
    )


def main() -> None:
    """A process for each case: Django takes its settings once."""
    for clients, size in CASES:
        subprocess.run([sys.executable, "-m", "benchmarks.round_time", str(clients), str(size)], check=True)


if __name__ == "__main__":
    if case := sys.argv[1:]:
        measure(*map(int, case))
    else:
        main()
