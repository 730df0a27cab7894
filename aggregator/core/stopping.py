"""When a run has reached what it was started for, or gets no further."""

from __future__ import annotations

from collections.abc import Mapping

from aggregator.core.config import StoppingConfig


def reason_to_stop(config: StoppingConfig, values: Mapping[int, float]) -> str | None:
    """Why the run should end now, in words for an operator; None if it should go on.

    `values` are the deciding metric's, by round; rounds without one are left out. Round 0 is the model that the run began with.
    """
    if not values:
        return None
    sign = 1 if config.better == "higher" else -1
    last_round = max(values)
    last = values[last_round]
    if config.target is not None and sign * (last - config.target) >= 0:
        return f"{config.source} {config.metric} has reached {last:.4g}; the target was {config.target:.4g}."
    best_round, best = min(values.items())
    for number, value in sorted(values.items()):
        if sign * (value - best) > config.min_change:
            best_round, best = number, value
    if config.patience is not None and last_round - best_round >= config.patience:
        return (
            f"{config.source} {config.metric} has not become better than {best:.4g} (round {best_round}) "
            f"for {last_round - best_round} rounds."
        )
    return None
