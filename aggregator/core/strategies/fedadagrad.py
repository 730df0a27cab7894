"""FedAdagrad: Reddi et al., "Adaptive federated optimization" (ICLR 2021), algorithm 2.

v ← v + Δ², w ← w + η Δ / (√v + τ). Defaults: η = 0.1, τ = 1e-3.
v begins at 0 as in flwr; `paper` begins it at τ², the least that the paper allows.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from aggregator.core.server_step import Block, BlockwiseOptimizer
from aggregator.core.strategies.base import OptimizerConfig, ServerOptimizer
from protos.tensors import Signature


class Adagrad(OptimizerConfig):
    """Smaller steps for weights that have moved much."""

    title: ClassVar[str] = "Adagrad"
    name: Literal["adagrad"] = "adagrad"
    learning_rate: Annotated[float, Field(gt=0, le=100, title="Server learning rate")] = 0.1
    tau: Annotated[float, Field(gt=0, le=1, title="Adaptivity τ", description="Smaller adapts more.")] = 1e-3
    paper: Annotated[bool, Field(title="Begin at τ², as the paper")] = False

    def build(self, signature: Signature) -> ServerOptimizer:
        return _Adagrad(self, signature)


class _Adagrad(BlockwiseOptimizer):
    slots = ("second_moment",)

    def __init__(self, config: Adagrad, signature: Signature) -> None:
        super().__init__(signature, initial=config.tau**2 if config.paper else 0.0)
        self._config = config

    def transform(self, delta: Block, state: tuple[Block, ...], scratch: Block, steps: int) -> None:
        (second,) = state
        np.multiply(delta, delta, out=scratch)
        second += scratch
        np.sqrt(second, out=scratch)
        scratch += self._config.tau
        delta /= scratch
        delta *= self._config.learning_rate
