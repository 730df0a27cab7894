"""FedAdam: Reddi et al., "Adaptive federated optimization" (ICLR 2021), algorithm 2.

m ← β₁ m + (1 − β₁) Δ, v ← β₂ v + (1 − β₂) Δ², w ← w + η_r m / (√v + τ). Defaults: η = 0.1, β₁ = 0.9, β₂ = 0.99, τ = 1e-3.

By default as flwr: v begins at 0, and η_r = η √(1 − β₂^(r+1)) / (1 − β₁^(r+1)) in round r = 1, 2, … corrects the
bias, with the exponent of flwr (Adam's own would be r). `paper`: v begins at τ², and η is constant, for the paper
corrects nothing.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from aggregator.core.server_step import Block, BlockwiseOptimizer
from aggregator.core.strategies.base import OptimizerConfig, ServerOptimizer
from protos.tensors import Signature


class Adam(OptimizerConfig):
    """Momentum, and smaller steps for weights whose steps vary."""

    title: ClassVar[str] = "Adam"
    name: Literal["adam"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=100, title="Server learning rate")] = 0.1
    beta_1: Annotated[float, Field(ge=0, lt=1, title="β₁, of the first moment")] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1, title="β₂, of the second moment")] = 0.99
    tau: Annotated[float, Field(gt=0, le=1, title="Adaptivity τ", description="Smaller adapts more.")] = 1e-3
    paper: Annotated[bool, Field(title="As the paper: no bias correction, begin at τ²")] = False

    def build(self, signature: Signature) -> ServerOptimizer:
        return _Adam(self, signature)


class _Adam(BlockwiseOptimizer):
    slots = ("first_moment", "second_moment")

    def __init__(self, config: Adam, signature: Signature) -> None:
        super().__init__(signature, initial=config.tau**2 if config.paper else 0.0)
        self._config = config

    def transform(self, delta: Block, state: tuple[Block, ...], scratch: Block, steps: int) -> None:
        first, second = state
        first *= self._config.beta_1
        np.multiply(delta, 1 - self._config.beta_1, out=scratch)
        first += scratch
        np.multiply(delta, delta, out=scratch)
        scratch *= 1 - self._config.beta_2
        second *= self._config.beta_2
        second += scratch
        np.sqrt(second, out=scratch)
        scratch += self._config.tau
        np.divide(first, scratch, out=delta)
        delta *= self._rate(steps)

    def _rate(self, steps: int) -> float:
        config = self._config
        if config.paper:
            return config.learning_rate
        return config.learning_rate * math.sqrt(1 - config.beta_2 ** (steps + 1)) / (1 - config.beta_1 ** (steps + 1))
