"""When a run ends before its last round."""

from __future__ import annotations

import pytest

from aggregator.core.config import StoppingConfig
from aggregator.core.stopping import reason_to_stop

FALLING = {0: 3.0, 1: 2.0, 2: 1.0}


def test_without_a_rule_a_run_goes_on() -> None:
    assert reason_to_stop(StoppingConfig(), {0: 0.1, 1: 0.99}) is None
    assert reason_to_stop(StoppingConfig(target=0.5, patience=1), {}) is None


@pytest.mark.parametrize(
    ("better", "target", "values", "stops"),
    [
        ("higher", 0.9, {0: 0.1, 1: 0.9}, True),
        ("higher", 0.9, {0: 0.95, 1: 0.89}, False),
        ("lower", 1.0, FALLING, True),
        ("lower", 0.5, FALLING, False),
    ],
)
def test_the_target(better: str, target: float, values: dict[int, float], stops: bool) -> None:
    config = StoppingConfig.model_validate({"better": better, "target": target, "metric": "m"})
    assert (reason_to_stop(config, values) is not None) is stops


def test_patience_counts_rounds_since_the_best() -> None:
    config = StoppingConfig(patience=2)
    assert reason_to_stop(config, {0: 0.1, 1: 0.5, 2: 0.4}) is None
    reason = reason_to_stop(config, {0: 0.1, 1: 0.5, 2: 0.4, 3: 0.5})
    assert reason == "server accuracy has not become better than 0.5 (round 1) for 2 rounds."


def test_a_change_too_small_is_no_progress() -> None:
    values = {0: 0.5, 1: 0.501, 2: 0.502}
    assert reason_to_stop(StoppingConfig(patience=2), values) is None
    assert reason_to_stop(StoppingConfig(patience=2, min_change=0.01), values) is not None
