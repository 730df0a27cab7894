"""Flower's message API: a ClientApp in the agent's own process, `fedagent run --flower`."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from aggregator.core.config import StrategyConfig
from aggregator.ports import RunOutcome, RunSpec
from protos.tensors import Signature, TensorSpec
from tests.aggregator.conftest import Federation
from tests.flower import environment
from tests.flower.conftest import Sites, enrol, online

SIGNATURE = Signature((TensorSpec("weights", "float32", (2, 3)), TensorSpec("count", "int64", ())))
PROJECT = """
[project]
name = "heights"
version = "2.1"

[tool.flwr.app.config]
scale = 2
local-epochs = 7

[tool.flwr.app.config.train]
fraction = 0.5
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Flower app's folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "site_app.py").write_text((Path(__file__).parent / "message_app.py").read_text())
    return folder


async def test_a_client_app_trains_and_evaluates(
    federation: Federation, sites: Sites, project: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "model.npz", weights=np.zeros((2, 3), np.float32), count=np.array(0))
    models = {"a": "site_app:model", "b": str(tmp_path / "model.npz")}
    for step, (name, model) in enumerate(models.items(), start=1):
        home = enrol(federation, tmp_path, name)
        sites.start_agent(home, project, "--flower", "site_app:app", "--flower-model", model, "--set", f"step={step}")
    await online(federation, *models)
    config = {"local": {"epochs": 3, "learning_rate": 0.5, "extra": {"pace": 4}}}
    strategy = StrategyConfig.model_validate(config)
    run = federation.store.add(RunSpec(5, "test", "tests", "heights", "2.1", SIGNATURE, strategy, 7, 2))
    async with asyncio.timeout(60):
        await federation.engine.run(5)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    trained = federation.models.saved[run.models[2].key]
    assert (trained["weights"] == 6).all()  # twice the mean of the steps, which the app's configuration doubles
    last = run.rounds[2, 1].participations
    assert [(p.num_examples, p.metrics) for p in last] == [
        # The app's state goes on from round to round; the strategy's values stand where Flower's templates look.
        (10, {"rounds": 2, "epochs": 3, "told.0": 2, "told.1": 0.5, "told.2": 4})
        for _ in range(2)
    ]
    assert [(p.evaluation_loss, p.evaluation_num_examples, p.evaluation_metrics) for p in last] == [
        (6.0, 5, {"eval_acc": 0.5}) for _ in range(2)
    ]


CASES = [
    ("site_app:with_client_fn", "site_app:model", "fit", "BrokenApp .*is a ClientApp with a client_fn"),
    ("site_app:model", "site_app:model", "fit", "BrokenApp .*is a function, not a flwr.clientapp.ClientApp"),
    ("site_app:app", "site_app:train", "fit", "BrokenApp .*makes no model: TypeError"),
    ("nowhere:app", "site_app:model", "fit", "BrokenApp 'nowhere:app' can't be loaded"),
    ("site_app:only_trains", "site_app:model", "evaluate", "TaskRefused The Flower app has no function for evaluate"),
    ("site_app:only_trains", "site_app:model", "fit", "BrokenApp The Flower app's reply has no metric 'num-examples'"),
]
"""App, model, task, what is said."""
IN_PROCESS = """
import sys
from client_agent.errors import AgentError
from client_agent.flower.client_app import flower_app
from client_agent.sdk import Context
for case in sys.argv[1:]:
    reference, model, task = case.split()
    try:
        client = flower_app(reference, model).client_fn(Context("site"))
        getattr(client, task)(client.get_parameters({}), {})
        print("nothing")
    except AgentError as error:
        print(type(error).__name__, error)
"""


def test_what_cannot_be_is_said(flower: Path, project: Path) -> None:
    """All in one process: importing Flower takes longest."""
    command = [str(flower), "-c", IN_PROCESS, *(" ".join(case[:3]) for case in CASES)]
    done = subprocess.run(
        command, cwd=project, env=environment.ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for (*_, expected), said in zip(CASES, done.stdout.splitlines(), strict=True):
        assert re.search(expected, said), done.stdout
