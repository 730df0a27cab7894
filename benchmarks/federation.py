"""The whole platform for a benchmark: real processes, real agents, on free ports, gone afterwards."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aggregator.core.config import StrategyConfig
from fedui.supervisor.stack import BASE_DIR, BIN, Stack

if TYPE_CHECKING:
    from fedui.accounts.models import User
    from fedui.federations.models import Federation
    from fedui.runs.models import Run

ONLINE_SECONDS = 60.0


@dataclass
class BenchmarkFederation:
    stack: Stack
    federation: Federation
    operator: User

    def enrol(self, count: int) -> list[Path]:
        """The agents' folders."""
        from fedui.clients.services import create_token

        _, token = create_token(self.federation, self.operator, max_uses=count)
        homes = [self.stack.data_dir / "agents" / str(index) for index in range(count)]
        for index, home in enumerate(homes):
            enroll = [str(BIN / "fedagent"), "enroll", self.stack.url, "--name", f"site-{index}", "--home", str(home)]
            subprocess.run(enroll, env={**os.environ, "FEDAGENT_TOKEN": token}, check=True, stdout=subprocess.DEVNULL)
        return homes

    def start_agents(self, count: int, app: str, options: Mapping[str, object]) -> None:
        """`app` is an attribute of `benchmarks.toy_apps`. Returns when all are online."""
        settings = [part for key, value in options.items() for part in ("--set", f"{key}={value}")]
        for index, home in enumerate(self.enrol(count)):
            run = [str(BIN / "fedagent"), "run", "--home", str(home), "--app", f"benchmarks.toy_apps:{app}", *settings]
            self.stack.children.start(f"agent-{index}", run, {"PYTHONPATH": str(BASE_DIR)})
        self.wait_for_agents(count)

    def wait_for_agents(self, count: int, seconds: float = ONLINE_SECONDS) -> None:
        from fedui.clients.models import Client

        self.stack.children.wait_until("Agents", lambda: Client.objects.online().count() == count, seconds)

    def start_run(self, app: str, config: StrategyConfig, rounds: int, seed: int = 1) -> Run:
        from fedui.runs.services import create_run
        from fedui.strategies.services import create_strategy

        version = create_strategy(self.federation, self.operator, name=f"{app}-strategy", config=config).latest
        row = self.federation.apps.get(name=app)
        return create_run(
            self.federation, self.operator, name=app, strategy_version=version, app=row, num_rounds=rounds, seed=seed
        )

    def wait_for(self, run: Run, seconds: float) -> None:
        def ended() -> bool:
            run.refresh_from_db()
            return run.is_terminal

        self.stack.children.wait_until("The end of the run", ended, seconds)
        if run.status != "completed":
            raise SystemExit(f"The run {run.status}: {run.reason}")


@contextmanager
def benchmark_federation() -> Iterator[BenchmarkFederation]:
    with (
        tempfile.TemporaryDirectory(prefix="fedui-bench-", ignore_cleanup_errors=True) as folder,
        Stack(Path(folder), host="127.0.0.1", port=0, grpc_port=0) as stack,
    ):
        from fedui.accounts.models import User
        from fedui.federations.services import create_federation

        operator = User.objects.create_superuser("operator")
        yield BenchmarkFederation(stack, create_federation("Benchmark", "bench", operator), operator)
