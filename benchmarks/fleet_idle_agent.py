"""The memory of an agent that is connected and has nothing to do, against a bare interpreter with the libraries that it needs."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from benchmarks.federation import benchmark_federation
from benchmarks.reporting import report
from client_agent.identity import Home
from client_agent.state import AgentState

MOST_MB = 80
IDLE_SECONDS = 30.0
"""Six heartbeats."""


def measure() -> None:
    agent = _of_an_agent()
    report(
        "idle_agent",
        agent,
        "MB",
        _of_the_libraries(),
        ok=agent < MOST_MB,
        limit_mb=MOST_MB,
        idle_seconds=IDLE_SECONDS,
        against="a Python process that has imported NumPy, gRPC and typer, and nothing else",
    )


def _of_an_agent() -> float:
    with benchmark_federation() as bench:
        bench.start_agents(1, "echo", {"size": 1})
        state = AgentState.read(Home(bench.stack.data_dir / "agents" / "0").state_file)
        time.sleep(IDLE_SECONDS)
        return _resident(state.pid or 0)


def _of_the_libraries() -> float:
    code = "import sys, grpc.aio, numpy, typer; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bare:
        assert bare.stdout and bare.stdin
        bare.stdout.readline()
        resident = _resident(bare.pid)
        bare.stdin.close()
    return resident


def _resident(process: int) -> float:
    return psutil.Process(process).memory_info().rss / 1e6
