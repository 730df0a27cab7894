"""What a round keeps of its updates, whichever rule takes them in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update, UpdateRejected
from aggregator.core.strategy import RoundAggregation, Strategy
from protos.tensors import Parameters, Signature
from tests.support.spool import MemorySpool

CURRENT: Parameters = {"w": np.ones((100, 50), np.float32), "steps": np.array(3)}
RULES = ["mean", "median", "qfedavg"]


def begin(number: int = 1, **parts: Any) -> RoundAggregation:
    config = StrategyConfig.model_validate(parts)
    signature = Signature.of(CURRENT)
    return Strategy(config, signature).begin(RoundContext(number, 7, signature, CURRENT, 3, MemorySpool))


def update(client_id: str, step: Any, *, loss: float = 1.0) -> Update:
    parameters = {"w": (CURRENT["w"] + step).astype(np.float32), "steps": np.array(4)}
    return Update(client_id, parameters, 10, {"initial_loss": loss})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_every_rule_tells_the_same_of_an_update(rule: str, clip: float | None) -> None:
    step = np.random.default_rng(1).standard_normal((100, 50))
    aggregation = begin(aggregation={"name": rule}, update={"clip_norm": clip})
    seen = aggregation.add(update("a", step))
    assert seen.norm == pytest.approx(np.linalg.norm(step), rel=1e-5)
    assert seen.largest == pytest.approx(np.abs(step).max(), rel=1e-5)
    alone = begin().add(update("a", step))
    np.testing.assert_allclose(seen.sketch, alone.sketch, rtol=1e-5, atol=1e-4)
    compared = aggregation.compare(aggregation.result())
    assert compared.clients["a"].cosine_to_aggregate == pytest.approx(1, abs=0.01)


def test_a_rejected_update_leaves_nothing_behind() -> None:
    aggregation = begin(aggregation={"name": "qfedavg"})
    aggregation.add(update("a", 1.0))
    with pytest.raises(UpdateRejected):
        aggregation.add(update("b", 100.0, loss=-1.0))
    aggregation.add(update("c", 1.0))
    clients = aggregation.compare(aggregation.result()).clients
    assert {client_id: client.norm_ratio for client_id, client in clients.items()} == {"a": 1.0, "c": 1.0}


def test_an_update_that_overflows_the_mean_leaves_nothing_behind() -> None:
    aggregation = begin()
    aggregation.add(update("a", 1.0))
    huge = update("b", 1.0)
    with pytest.raises(UpdateRejected):
        aggregation.add(Update("b", {**huge.parameters, "steps": np.array(2**62)}, 10, {}))
    assert set(aggregation.compare(aggregation.result()).clients) == {"a"}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("start", "far"), [(0.0, 1.7e153), (-1.7e308, 1.7e308)])
def test_a_step_too_long_to_be_clipped_is_rejected(rule: str, start: float, far: float) -> None:
    current: Parameters = {"a": np.full(40, start), "b": np.full(40, start)}
    config = StrategyConfig.model_validate({"aggregation": {"name": rule}, "update": {"clip_norm": 1.0}})
    signature = Signature.of(current)
    aggregation = Strategy(config, signature).begin(RoundContext(1, 7, signature, current, 2, MemorySpool))
    with pytest.raises(UpdateRejected, match="too large"):
        aggregation.add(Update("a", dict.fromkeys("ab", np.full(40, far)), 10, {"initial_loss": 1.0}))


def test_each_round_projects_in_its_own_way() -> None:
    first, second = (begin(number).add(update("a", 1.0)).sketch for number in (1, 2))
    again = begin(1).add(update("a", 1.0)).sketch
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, second)
