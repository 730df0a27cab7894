"""q-FFL: Li, Sanjabi, Beirami and Smith, "Fair resource allocation in federated learning" (ICLR 2020), algorithm 2 (q-FedAvg).

With L = 1/η, F_k the client's loss of the model that it was given, and Δ_k = L (w − w_k): w ← w − Σ_k F_k^q Δ_k / Σ_k
(q F_k^(q−1) ‖Δ_k‖² + L F_k^q). A larger q favours the clients that do worst; q = 0 is the unweighted mean. Defaults:
q = 0.2, η = 0.1.

Streams: F_k^q (w_k − w) is rounded to float64 once for each client and then summed exactly, so that the order of
arrival changes no bit.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from aggregator.core.scaled import ScaledMean
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig, Update, UpdateRejected
from protos.tensors import Parameters

LEAST_LOSS = 1e-10
LARGEST_WEIGHT = 1e300
"""Of one client: no round has so many that their sum would be infinite."""


class QFedAvg(RuleConfig):
    """Favours the clients for which the model does worst."""

    title: ClassVar[str] = "Fair averaging (q-FedAvg)"
    linear: ClassVar[bool] = True
    name: Literal["qfedavg"] = "qfedavg"
    q: Annotated[float, Field(ge=0, le=10, title="Fairness q", description="0 is the unweighted mean.")] = 0.2
    client_learning_rate: Annotated[float, Field(gt=0, le=10, title="Learning rate of the clients")] = 0.1
    loss_metric: Annotated[str, Field(min_length=1, max_length=63, title="Metric with the loss before training")] = (
        "initial_loss"
    )

    def begin(self, context: RoundContext) -> Aggregator:
        return _QFedAvg(self, context)

    def explain(self, quorum: int) -> str:
        asked = f"The app must report its loss before training as the metric “{self.loss_metric}”."
        return f"{asked} A client that reports a false loss gains weight."


class _QFedAvg:
    def __init__(self, config: QFedAvg, context: RoundContext) -> None:
        self._config = config
        self._mean = ScaledMean(context)
        self._weights: list[float] = []

    def add(self, update: Update) -> None:
        loss = self._loss_of(update)
        steps, squared = self._mean.measured(update)
        scale, weight = self._weigh(loss, squared)
        self._mean.add(update, steps, scale=scale, weight=1)
        self._weights.append(weight)

    def result(self) -> Parameters:
        return self._mean.result(len(self._weights) / self._config.client_learning_rate / math.fsum(self._weights))

    def close(self) -> None:
        """Everything is in memory."""

    def _loss_of(self, update: Update) -> float:
        loss = update.metrics.get(self._config.loss_metric)
        if loss is None or loss < 0:
            raise UpdateRejected(
                f"Fair averaging needs the metric {self._config.loss_metric!r}, the loss before training, as a number from 0. "
                "Let the app's fit return it."
            )
        return float(np.float64(loss) + LEAST_LOSS)

    def _weigh(self, loss: float, squared: float) -> tuple[float, float]:
        """F^q, and q F^(q−1) ‖Δ‖² + L F^q. Raises `UpdateRejected` if they are too large for a sum over clients."""
        q, inverse = self._config.q, 1 / self._config.client_learning_rate
        try:
            scale = loss**q
            weight = q * loss ** (q - 1) * inverse**2 * squared + inverse * scale
        except OverflowError:
            weight = math.inf
        if not weight <= LARGEST_WEIGHT:  # nor NaN
            raise UpdateRejected(
                f"The loss before training, {loss:.3g}, or the step is so large that the update's weight is too large for a number."
            )
        return scale, weight
