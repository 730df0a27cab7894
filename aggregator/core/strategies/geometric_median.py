"""RFA: Pillutla, Kakade and Harchaoui, "Robust aggregation for federated learning" (IEEE TSP 2022).

The geometric median, by the smoothed Weiszfeld algorithm.

The aggregate z minimises Σ_k α_k ‖w_k − z‖ with α_k the share of examples. Each step weighs update k by β_k = α_k /
max(ν, ‖w_k − z‖) and takes the mean. z is always a mean of the updates, so the steps are made on the K weights with
the matrix of inner products, and the updates themselves are read twice, whatever the number of steps. They begin near
the update that has the least distance to the others, not at the mean, which one far update spoils.

Tolerates wrong updates with less than half of the examples. Defaults: ν = 1e-6, at most 100 steps, until z moves by
less than 1e-9 of the median distance.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aggregator.core.spooled import Rows, SpooledAggregator, squared_distances
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig

TOLERANCE = 1e-9


class GeometricMedian(RuleConfig):
    """The point whose distances to all updates have the smallest sum."""

    title: ClassVar[str] = "Geometric median (RFA)"
    weighs: ClassVar[bool] = True
    name: Literal["geometric_median"] = "geometric_median"
    smoothing: Annotated[float, Field(gt=0, le=1, title="Smoothing ν")] = 1e-6
    steps: Annotated[int, Field(ge=1, le=10_000, title="Most steps")] = 100

    def begin(self, context: RoundContext) -> Aggregator:
        return _GeometricMedian(context, self)

    def explain(self, quorum: int) -> str:
        return "Wrong updates are tolerated while they have less than half of the examples. A single one that is only a little off passes."


class _GeometricMedian(SpooledAggregator):
    def __init__(self, context: RoundContext, config: GeometricMedian) -> None:
        super().__init__(context)
        self._config = config

    def combine(self, rows: Rows) -> NDArray[Any]:
        current = self.current()
        gram, shares = rows.gram(current), rows.num_examples / rows.num_examples.sum()
        weights = self._beginning(gram, shares)
        for _ in range(self._config.steps):
            distances = distances_to_mean(gram, weights)
            newer = self._weights(shares, distances)
            change, weights = newer - weights, newer
            if change @ gram @ change <= (TOLERANCE * np.median(distances)) ** 2:
                break
        return rows.combination(weights, current)

    def _beginning(self, gram: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
        distances = np.sqrt(squared_distances(gram))
        to_centre = distances[np.argmin(distances @ shares)]
        return self._weights(shares, np.maximum(to_centre, np.median(to_centre)))

    def _weights(self, shares: NDArray[np.float64], distances: NDArray[np.float64]) -> NDArray[np.float64]:
        pulls = shares / np.maximum(self._config.smoothing, distances)
        weights: NDArray[np.float64] = pulls / pulls.sum()
        return weights


def distances_to_mean(gram: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """‖x_k − Σ_j weights_j x_j‖ of each row, from the inner products of the rows."""
    products = gram @ weights
    squares: NDArray[np.float64] = np.diag(gram) - 2 * products + weights @ products
    return np.sqrt(np.maximum(squares, 0.0))
