"""Strategies of others: found by entry point, and unable to do harm."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator.core.strategies.base import (
    Aggregator,
    OptimizerConfig,
    RoundContext,
    RuleConfig,
    ServerOptimizer,
    Update,
)
from aggregator.core.strategies.stacked import StackedRule
from aggregator.ports import RunOutcome
from protos.convert import Scalars
from protos.tensors import Parameters, Signature
from tests.aggregator.conftest import Federation

ROOT = Path(__file__).parent.parent.parent


class Scripted(StackedRule):
    """Does what a test wants in its second round."""

    title: ClassVar[str] = "Scripted"
    name: Literal["scripted"] = "scripted"
    act: ClassVar[Callable[[NDArray[Any]], Any]]

    def combine(self, rows: NDArray[Any], num_examples: NDArray[np.int64]) -> NDArray[Any]:
        mean: NDArray[Any] = rows.mean(axis=0)
        return mean if not mean.max() > 1 else Scripted.act(rows)


def explode(rows: NDArray[Any]) -> NDArray[Any]:
    raise ZeroDivisionError("by a fly")


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (explode, "Scripted failed in result: ZeroDivisionError: by a fly"),
        (lambda rows: np.full(rows.shape[1], np.nan), "Scripted returned NaN or infinity in tensor 'w'"),
        (lambda rows: np.zeros(3), "combine returned shape (3,) for 12 coordinates"),
        (lambda rows: None, "combine returned shape () for 12 coordinates"),
    ],
)
async def test_a_strategy_that_goes_wrong_fails_the_round_and_the_last_model_stays(
    federation: Federation, act: Callable[[NDArray[Any]], Any], reason: str
) -> None:
    Scripted.act = staticmethod(act)
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=3)
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"aggregation": Scripted()}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    assert run.outcome is RunOutcome.FAILED
    assert reason in run.reason
    assert sorted(run.models) == [0, 1]
    assert set(run.abandoned) == {(2, 1), (2, 2), (2, 3)}


async def test_a_strategy_that_takes_too_long_fails_the_round(federation: Federation) -> None:
    released = threading.Event()
    Scripted.act = staticmethod(lambda rows: released.wait(60))
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=2)
    strategy = run.spec.strategy
    faults = strategy.faults.model_copy(update={"aggregation_seconds": 0.2, "max_abandoned": 1})
    run.spec = replace(run.spec, strategy=strategy.model_copy(update={"aggregation": Scripted(), "faults": faults}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    released.set()
    assert run.outcome is RunOutcome.FAILED
    assert "took longer than its limit of 0.2 s" in run.reason


class Careless(Scripted):
    """Raises where it is only asked."""

    name: Literal["careless"] = "careless"  # type: ignore[assignment]
    where: str

    def begin(self, context: RoundContext) -> Aggregator:
        if self.where == "begin":
            raise KeyError("no such thing")
        return super().begin(context)

    def fit_config(self, updates_wanted: int) -> Scalars:
        if self.where == "fit_config":
            raise KeyError("no such thing")
        return {"huge": 10**30} if self.where == "value" else {}

    def check_initial(self, parameters: Parameters) -> None:
        if self.where == "check_initial":
            raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("begin", "Scripted failed in begin: KeyError: 'no such thing'"),
        ("fit_config", "Scripted failed in fit_config: KeyError: 'no such thing'"),
        ("value", "Scripted failed in fit_config: CodecError: 'huge' is a int that can't be sent"),
        ("check_initial", "The strategy failed in check_initial: KeyError: 'no such thing'"),
    ],
)
async def test_a_rule_that_raises_when_it_is_asked_fails_the_run_with_the_reason(
    federation: Federation, where: str, reason: str
) -> None:
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=1)
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"aggregation": Careless(where=where)}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    assert run.outcome is RunOutcome.FAILED
    assert reason in run.reason


async def test_an_aggregation_that_ends_after_its_time_changes_nothing(federation: Federation) -> None:
    """The thread goes on, while the round is tried again."""
    released, stepped, calls = threading.Event(), threading.Event(), iter(range(100))

    def act(rows: NDArray[Any]) -> NDArray[Any]:
        if next(calls) == 0:
            released.wait(30)
        else:
            _Counter.stepped = stepped
            released.set()
            stepped.wait(30)
        mean: NDArray[Any] = rows.mean(axis=0)
        return mean

    _Counter.failures = 0
    Scripted.act = staticmethod(act)
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=2)
    strategy = run.spec.strategy
    faults = strategy.faults.model_copy(update={"aggregation_seconds": 2.0})
    parts = {"aggregation": Scripted(), "optimizer": CountsSteps(), "faults": faults}
    run.spec = replace(run.spec, strategy=strategy.model_copy(update=parts))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert set(run.abandoned) == {(2, 1)}
    assert federation.models.saved[run.models[2].key]["w"][0, 0] == 1 + 2


class CountsSteps(OptimizerConfig):
    title: ClassVar[str] = "Counts"
    name: Literal["counts"] = "counts"

    def build(self, signature: Signature) -> ServerOptimizer:
        return _Counter()


class _Counter:
    """Its n-th step adds n: a state that a failed round, or a restart, must neither lose nor keep."""

    failures: ClassVar[int] = 0
    stepped: ClassVar[threading.Event] = threading.Event()

    def __init__(self) -> None:
        self._steps = 0

    def step(self, current: Parameters, aggregate: Parameters) -> Parameters:
        self._steps += 1
        _Counter.stepped.set()
        if _Counter.failures:
            _Counter.failures -= 1
            raise RuntimeError("not now")
        return {**aggregate, "w": current["w"] + np.float32(self._steps)}

    def state(self) -> Parameters:
        return {"steps": np.array(self._steps)}

    def load(self, state: Parameters) -> None:
        self._steps = int(state["steps"])


async def test_what_a_failed_round_did_to_the_optimizer_is_forgotten(federation: Federation) -> None:
    _Counter.failures = 2
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=3)
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"optimizer": CountsSteps()}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert federation.models.saved[run.models[3].key]["w"][0, 0] == 1 + 2 + 3


async def test_a_restart_goes_on_with_the_optimizers_state(federation: Federation) -> None:
    _Counter.failures = 0
    agent = await federation.connect("a", automatic=False)
    run = federation.add_run(clients=1, num_rounds=3)
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"optimizer": CountsSteps()}))
    running = asyncio.create_task(federation.engine.run(1))
    while (task := await asyncio.wait_for(agent.tasks.get(), 10)).round < 3:
        await agent.do(task)
    port = federation.engine.port
    await federation.engine.stop()
    await running
    federation.store.last_events[1] = federation.sink.events[-1].seq
    await federation.start(port)
    await federation.connect("a")
    async with asyncio.timeout(20):
        await federation.engine.run(1)
    assert federation.models.saved[run.models[3].key]["w"][0, 0] == 1 + 2 + 3


class RaisesOnAdd(RuleConfig):
    title: ClassVar[str] = "Raises"
    name: Literal["raises"] = "raises"

    def begin(self, context: RoundContext) -> Aggregator:
        return _Raising()


class _Raising:
    def add(self, update: Update) -> None:
        raise KeyError("no such thing")

    def result(self) -> Parameters:
        return {}

    def close(self) -> None: ...


class ReturnsComplex(RuleConfig):
    title: ClassVar[str] = "Complex"
    name: Literal["complex"] = "complex"

    def begin(self, context: RoundContext) -> Aggregator:
        return _Complex()


class _Complex(_Raising):
    def add(self, update: Update) -> None: ...

    def result(self) -> Parameters:
        return {"w": np.full((3, 4), 1j)}


async def test_a_model_of_numbers_that_no_model_has_fails_the_round(federation: Federation) -> None:
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=1)
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"aggregation": ReturnsComplex()}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    assert "Complex returned another model than the run's: " in run.reason


async def test_a_rule_that_raises_on_an_update_fails_the_round_and_not_the_client(federation: Federation) -> None:
    await federation.connect("a")
    run = federation.add_run(clients=1, num_rounds=1)
    run.spec = replace(run.spec, strategy=run.spec.strategy.model_copy(update={"aggregation": RaisesOnAdd()}))
    async with asyncio.timeout(30):
        await federation.engine.run(1)
    assert "Raises failed in add: KeyError" in run.reason
    assert {p.outcome for p in run.rounds[1, 1].participations} == {"cancelled"}


def test_the_example_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """Installed by hand: the module on the path, and the metadata that pip would write."""
    source = ROOT / "examples" / "robust_median" / "robust_median.py"
    code = [line for line in source.read_text().splitlines() if line.strip()]
    assert len(code) <= 25
    metadata = tmp_path / "robust_median-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: robust-median\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fedui.strategies]\nmedian_of_many = robust_median:MedianOfMany\n")
    (tmp_path / "robust_median.py").write_text(source.read_text())
    script = """
import json
import numpy as np
from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.core.strategy import Strategy
from aggregator.spool import FileSpool
from protos.tensors import Signature

base = {"cohort": {"min_clients": 5}, "faults": {"quorum": 5}}
config = StrategyConfig.model_validate(base | {"aggregation": {"name": "median_of_many", "least": 5}})
model = {"w": np.zeros(3, np.float32), "n": np.array(0)}
strategy = Strategy(config, Signature.of(model))
aggregation = strategy.begin(RoundContext(1, 0, Signature.of(model), model, 5, FileSpool))
for k, value in enumerate([5, 1, 1e9, 3, 2]):
    aggregation.add(Update(str(k), {"w": np.full(3, value, np.float32), "n": np.array(k)}, 1, {}))
result = aggregation.result()
try:
    StrategyConfig.model_validate({"aggregation": {"name": "median_of_many", "least": 5}})
    refusal = ""
except ValueError as error:
    refusal = str(error)
print(json.dumps({"w": result["w"].tolist(), "n": int(result["n"]), "refusal": refusal,
    "schema": "MedianOfMany" in StrategyConfig.model_json_schema()["$defs"]}))
"""
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    output = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    answer = json.loads(output.stdout)
    assert (answer["w"], answer["n"], answer["schema"]) == ([3.0, 3.0, 3.0], 2, True)
    assert "Median of many with these settings needs at least 5 updates" in answer["refusal"]
