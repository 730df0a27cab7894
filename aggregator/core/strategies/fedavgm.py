"""FedAvgM: Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution for federated visual classification" (2019).

Server momentum: v ← β v + Δ, w ← w + η v, with Δ the aggregate minus the current model. β = 0 and η = 1 is FedAvg.
Defaults: η = 1, β = 0.9. As flwr, but that its default β is 0.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.server_step import Block, BlockwiseOptimizer
from aggregator.core.strategies.base import OptimizerConfig, ServerOptimizer
from protos.tensors import Signature


class Momentum(OptimizerConfig):
    """Goes on in the direction of the rounds before."""

    title: ClassVar[str] = "Momentum (FedAvgM)"
    name: Literal["momentum"] = "momentum"
    learning_rate: Annotated[float, Field(gt=0, le=100, title="Server learning rate")] = 1.0
    momentum: Annotated[float, Field(ge=0, lt=1, title="Momentum")] = 0.9
    nesterov: Annotated[bool, Field(title="Look ahead (Nesterov)")] = False

    def build(self, signature: Signature) -> ServerOptimizer:
        return _Momentum(self, signature)


class _Momentum(BlockwiseOptimizer):
    slots = ("momentum",)

    def __init__(self, config: Momentum, signature: Signature) -> None:
        super().__init__(signature)
        self._config = config

    def transform(self, delta: Block, state: tuple[Block, ...], scratch: Block, steps: int) -> None:
        (velocity,) = state
        velocity *= self._config.momentum
        velocity += delta
        if self._config.nesterov:
            scratch[:] = velocity
            scratch *= self._config.momentum
            delta += scratch
        else:
            delta[:] = velocity
        delta *= self._config.learning_rate
