"""What a strategy decides in a round, apart from who takes part."""

from __future__ import annotations

from typing import Protocol

from aggregator.core.accumulator import Accumulator
from aggregator.core.config import StrategyConfig
from protos.convert import Scalars
from protos.tensors import Parameters, Signature


class Strategy(Protocol):
    """Made anew from its configuration for every run."""

    def __init__(self, config: StrategyConfig) -> None: ...

    def fit_config(self, round_number: int) -> Scalars:
        """What the clients of the round are told about their training."""
        ...

    def accumulator(self, signature: Signature) -> Accumulator:
        """An empty accumulator for the updates of one round."""
        ...

    def next_model(self, current: Parameters, aggregate: Parameters) -> Parameters:
        """The global model after the round, from the one before it and the aggregate of the updates. Mutates neither."""
        ...
