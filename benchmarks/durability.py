"""What it costs that a run survives: a round of ten million parameters with checkpoints on and off; and whether the way over
the network, through processes and files, changes a bit of the model.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from aggregator.checkpoints import CheckpointStore
from aggregator.core.config import CohortConfig, EvaluationConfig, StrategyConfig
from aggregator.engine import Engine
from aggregator.files import FolderFiles
from aggregator.memory import MemoryClientRegistry, MemoryEventSink, MemoryModelStore, MemoryRunStore, StoredRun
from aggregator.ports import ModelStore, RunSpec
from benchmarks.federation import benchmark_federation
from benchmarks.reporting import load, report
from fedui.supervisor.stack import BIN
from protos.tensors import Parameters, Signature, TensorSpec
from tests.support.authority import TestAuthority
from tests.support.scripted_agent import ScriptedAgent

PARAMETERS = 10_000_000
SIGNATURE = Signature((TensorSpec("w", "float32", (PARAMETERS,)),))
CLIENTS = 3
ROUNDS, WARM_UP = 4, 1
PAIRS = 2
BAR = 0.15

SITES, SEED = 3, 21
APP = "digits-mlp"


# --- checkpoints on and off ------------------------------------------------------------------------------------------


class Site(ScriptedAgent):
    """Adds to each weight, in place of a training."""

    def trained(self, model: Parameters) -> Parameters:
        return {name: array + np.float32(self.step) for name, array in model.items()}


def durability_overhead() -> None:
    """Rounds with and without take turns: what else the machine does strikes both."""
    on: list[float] = []
    off: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fedui-bench-") as folder:
        for _ in range(PAIRS):
            off += asyncio.run(_rounds(MemoryModelStore()))
            on += asyncio.run(_rounds(CheckpointStore(FolderFiles(Path(folder)))))
    seconds, reference = statistics.median(on), statistics.median(off)
    report(
        "durability_overhead", seconds, "s a round", reference, ok=seconds <= (1 + BAR) * reference, bar=1 + BAR,
        parameters=PARAMETERS, clients=CLIENTS, rounds=len(on), fastest=[round(min(on), 3), round(min(off), 3)], load=load(),
        against="the same rounds over TLS with models in memory alone",
        why_missed="the checkpoint of 40 MB is hashed, written and flushed to the disk before the round counts",
    )  # fmt: skip


async def _rounds(models: ModelStore) -> list[float]:
    """Seconds from the beginning of each round to its commit."""
    authority, registry, store = TestAuthority(), MemoryClientRegistry(), MemoryRunStore()
    engine = Engine(
        owner="bench", bind="127.0.0.1:0", tls=authority.server(), registry=registry, store=store, models=models,
        events=MemoryEventSink(), find_evaluator=lambda app: None, heartbeat_seconds=30.0,
    )  # fmt: skip
    await engine.start()
    async with AsyncExitStack() as agents:
        for number in range(CLIENTS):
            registry.add(f"site-{number}", "bench", None)
            await agents.enter_async_context(Site(authority, engine.port, f"site-{number}", signature=SIGNATURE))
        run = _a_run(store)
        await engine.run(run.spec.run_id)
    await engine.stop()
    if run.rounds_done != ROUNDS:
        raise SystemExit(f"The run ended after {run.rounds_done} rounds: {run.reason}")
    committed = sorted((number, record) for (number, _), record in run.rounds.items() if number > WARM_UP)
    return [(record.committed_at - record.started_at).total_seconds() for _, record in committed if record.committed_at]


def _a_run(store: MemoryRunStore) -> StoredRun:
    strategy = StrategyConfig(
        cohort=CohortConfig(min_clients=CLIENTS), evaluation=EvaluationConfig(federated=False, server=False)
    )
    return store.add(RunSpec(1, "bench", "bench", "toy", "1", SIGNATURE, strategy, SEED, ROUNDS))


# --- the same run over the network and in one process ----------------------------------------------------------------


def network_equals_process() -> None:
    config = StrategyConfig.model_validate(
        {
            "cohort": {"min_clients": SITES},
            "optimizer": {"name": "adam"},
            "method": {"name": "scaffold"},
            "evaluation": {"federated": False, "server": False},
        }
    )
    over_network, in_process = _over_network(config), _in_process(config)
    differing = sum(
        int(np.count_nonzero(in_process[name].view(np.uint8) != array.view(np.uint8)))
        for name, array in over_network.items()
    )
    same = over_network.keys() == in_process.keys() and differing == 0
    values = sum(array.size for array in over_network.values())
    report(
        "network_equals_process", differing, "bytes that differ", sum(array.nbytes for array in over_network.values()),
        ok=same, values=values, clients=SITES, rounds=ROUNDS, strategy="SCAFFOLD with Adam",
        against="the bytes of the model that one process comes to, without any network",
        why_missed="the model of the run over the network is another one",
    )  # fmt: skip


def _over_network(config: StrategyConfig) -> Parameters:
    """By the whole platform: web, worker, agents as processes, checkpoints in files."""
    from safetensors.numpy import load_file

    with benchmark_federation() as bench:
        for index, home in enumerate(bench.enrol(SITES)):
            settings = [part for name, value in _options(index).items() for part in ("--set", f"{name}={value}")]
            agent = [str(BIN / "fedagent"), "run", "--home", str(home), "--app", APP, *settings]
            bench.stack.children.start(f"agent-{index}", agent, {})
        bench.wait_for_agents(SITES)
        run = bench.start_run(APP, config, ROUNDS, seed=SEED)
        bench.wait_for(run, 120)
        model = run.latest_model
        assert model is not None  # the run is complete
        return load_file(bench.stack.data_dir / "models" / model.key)


def _in_process(config: StrategyConfig) -> Parameters:
    from client_agent import hosting
    from client_agent.sdk import Context
    from tests.support.simulation import Simulation

    sites = {}
    for index in range(SITES):
        (sites[f"site-{index}"],) = hosting.host_all((APP,), Context(f"site-{index}", _options(index))).values()
    return Simulation(config, sites, seed=SEED).run(ROUNDS)


def _options(index: int) -> Mapping[str, str]:
    return {"partition": str(index), "partitions": str(SITES)}


CASES = {"durability_overhead": durability_overhead, "network_equals_process": network_equals_process}


def main() -> None:
    """A process for each case: Django takes its settings once."""
    for case in CASES:
        subprocess.run([sys.executable, "-m", "benchmarks.durability", case], check=True)


if __name__ == "__main__":
    if case := sys.argv[1:]:
        CASES[case[0]]()
    else:
        main()
