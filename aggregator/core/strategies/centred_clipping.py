"""Centred clipping: Karimireddy, He and Jaggi, "Learning from history for Byzantine robust optimization" (ICML 2021), section 4.

v ← v + (1/n) Σ_k (w_k − v) min(1, τ / ‖w_k − v‖), repeated; unweighted. The centre begins at the current global
model, so that the rule keeps nothing between rounds (the paper begins at the aggregate before; the clients' momentum,
which the paper asks for, is the app's). No wrong update moves the model by more than τ / n a step. Defaults: τ = 10,
3 steps.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aggregator.core.spooled import Rows, SpooledAggregator
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig
from aggregator.core.strategies.geometric_median import distances_to_mean


class CentredClipping(RuleConfig):
    """The mean of updates that are drawn in to within a radius of the centre."""

    title: ClassVar[str] = "Centred clipping"
    name: Literal["centred_clipping"] = "centred_clipping"
    radius: Annotated[float, Field(gt=0, le=1e9, title="Radius τ")] = 10.0
    steps: Annotated[int, Field(ge=1, le=100, title="Steps")] = 3

    def begin(self, context: RoundContext) -> Aggregator:
        return _CentredClipping(context, self)

    def explain(self, quorum: int) -> str:
        reach = self.steps * self.radius / quorum
        return f"With {quorum} updates, a wrong one moves the model by at most {reach:.3g} a round. The right radius depends on the model."


class _CentredClipping(SpooledAggregator):
    def __init__(self, context: RoundContext, config: CentredClipping) -> None:
        super().__init__(context)
        self._config = config

    def combine(self, rows: Rows) -> NDArray[Any]:
        current = self.current()
        gram = rows.gram(current)  # so the centre, the current model, is 0, and always Σ_k weights_k (w_k − current)
        weights = np.zeros(rows.count)
        for _ in range(self._config.steps):
            distances = distances_to_mean(gram, weights)
            drawn = self._config.radius / np.maximum(distances, self._config.radius) / rows.count
            weights = weights * (1 - drawn.sum()) + drawn
        return rows.combination(weights, current)
