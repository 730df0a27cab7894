"""FedNova: Wang et al., "Tackling the objective inconsistency problem in heterogeneous federated optimization" (NeurIPS 2020).

Clients that made unequal numbers τ_k of local steps pull the mean towards those that made many. With p_k the share of
examples, w ← w + τ_eff Σ_k p_k (w_k − w) / τ_k and τ_eff = Σ_k p_k τ_k: every step counts the same. For plain SGD at
the clients, equation 7 with a_k = 1.

Streams: (w_k − w) / τ_k is rounded to float64 once for each client and then summed exactly, so that the order of
arrival changes no bit.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.scaled import ScaledMean
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig, Update, UpdateRejected
from protos.tensors import Parameters


class FedNova(RuleConfig):
    """The mean of the updates, each divided by its number of local steps."""

    title: ClassVar[str] = "Normalised averaging (FedNova)"
    weighs: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    partial_work: ClassVar[bool] = True
    name: Literal["fednova"] = "fednova"
    steps_metric: Annotated[str, Field(min_length=1, max_length=63, title="Metric with the local steps")] = (
        "local_steps"
    )

    def begin(self, context: RoundContext) -> Aggregator:
        return _FedNova(self, context)

    def explain(self, quorum: int) -> str:
        return f"The app must report its number of local steps as the metric “{self.steps_metric}”."


class _FedNova:
    def __init__(self, config: FedNova, context: RoundContext) -> None:
        self._config = config
        self._mean = ScaledMean(context)
        self._steps = 0
        self._examples = 0

    def add(self, update: Update) -> None:
        steps = update.steps or update.metrics.get(self._config.steps_metric, 0.0)
        if not 1 <= steps <= 2**31 or steps != int(steps):
            raise UpdateRejected(
                f"Normalised averaging needs the metric {self._config.steps_metric!r}, the number of local steps, from 1. "
                "Let the app's fit return it."
            )
        apart, _ = self._mean.measured(update)
        self._mean.add(update, apart, scale=1 / steps, weight=update.num_examples)
        self._steps += update.num_examples * int(steps)
        self._examples += update.num_examples

    def result(self) -> Parameters:
        return self._mean.result(self._steps / self._examples)

    def close(self) -> None:
        """Everything is in memory."""
