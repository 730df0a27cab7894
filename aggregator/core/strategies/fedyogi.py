"""FedYogi: Reddi et al., "Adaptive federated optimization" (ICLR 2021), algorithm 2.

m ← β₁ m + (1 − β₁) Δ, v ← v − (1 − β₂) Δ² sign(v − Δ²), w ← w + η m / (√v + τ). Defaults as flwr: η = 0.01, β₁ = 0.9, β₂ = 0.99, τ = 1e-3.
v begins at 0 as in flwr; `paper` begins it at τ².
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from aggregator.core.server_step import Block, BlockwiseOptimizer
from aggregator.core.strategies.base import OptimizerConfig, ServerOptimizer
from protos.tensors import Signature


class Yogi(OptimizerConfig):
    """Adam with a second moment that changes by no more than the newest step."""

    title: ClassVar[str] = "Yogi"
    name: Literal["yogi"] = "yogi"
    learning_rate: Annotated[float, Field(gt=0, le=100, title="Server learning rate")] = 0.01
    beta_1: Annotated[float, Field(ge=0, lt=1, title="β₁, of the first moment")] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1, title="β₂, of the second moment")] = 0.99
    tau: Annotated[float, Field(gt=0, le=1, title="Adaptivity τ", description="Smaller adapts more.")] = 1e-3
    paper: Annotated[bool, Field(title="Begin at τ², as the paper")] = False

    def build(self, signature: Signature) -> ServerOptimizer:
        return _Yogi(self, signature)


class _Yogi(BlockwiseOptimizer):
    slots = ("first_moment", "second_moment")

    def __init__(self, config: Yogi, signature: Signature) -> None:
        super().__init__(signature, initial=config.tau**2 if config.paper else 0.0)
        self._config = config

    def transform(self, delta: Block, state: tuple[Block, ...], scratch: Block, steps: int) -> None:
        first, second = state
        first *= self._config.beta_1
        np.multiply(delta, 1 - self._config.beta_1, out=scratch)
        first += scratch
        delta *= delta
        np.subtract(second, delta, out=scratch)
        np.sign(scratch, out=scratch)
        delta *= scratch
        delta *= 1 - self._config.beta_2
        second -= delta
        np.sqrt(second, out=scratch)
        scratch += self._config.tau
        np.divide(first, scratch, out=delta)
        delta *= self._config.learning_rate
