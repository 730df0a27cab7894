"""FedAvg: McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (AISTATS 2017).

Algorithm 1: the server's next model is the mean of the clients' models after local training, weighted by their numbers of examples:
w_{t+1} = Σ_k (n_k / n) w_{t+1}^k. As parts: the rule `mean`, no method beside it and no server optimiser.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from aggregator.core.accumulator import WeightedMean
from aggregator.core.strategies.base import (
    Aggregator,
    MethodConfig,
    Observer,
    OptimizerConfig,
    RoundContext,
    RuleConfig,
    ServerOptimizer,
    Update,
)
from protos.tensors import Parameters, Signature


class Mean(RuleConfig):
    """The mean of the updates, weighted by their numbers of examples."""

    title: ClassVar[str] = "Mean, weighted by examples"
    weighs: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    name: Literal["mean"] = "mean"

    def begin(self, context: RoundContext) -> Aggregator:
        return _MeanAggregator(context.signature)

    def explain(self, quorum: int) -> str:
        return "One client that sends a wrong update can move the model as far as it likes."


class _MeanAggregator:
    def __init__(self, signature: Signature) -> None:
        self._mean = WeightedMean(signature)

    def add(self, update: Update) -> None:
        self._mean.add(update.parameters, update.num_examples)

    def add_observed(self, update: Update, observe: Observer) -> None:
        self._mean.add(update.parameters, update.num_examples, observe)

    def result(self) -> Parameters:
        return self._mean.result()

    def close(self) -> None:
        """Everything is in memory."""


class NoMethod(MethodConfig):
    """Each client minimises its own loss, beginning at the global model."""

    title: ClassVar[str] = "None: plain local training"
    name: Literal["none"] = "none"


class NoOptimizer(OptimizerConfig):
    """The aggregate is the next global model."""

    title: ClassVar[str] = "None: the aggregate is the next model"
    name: Literal["none"] = "none"

    def build(self, signature: Signature) -> ServerOptimizer:
        return _TakeAggregate()


class _TakeAggregate:
    def step(self, current: Parameters, aggregate: Parameters) -> Parameters:
        return aggregate

    def state(self) -> Parameters:
        return {}

    def load(self, state: Parameters) -> None:
        """There is none."""
