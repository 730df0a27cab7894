"""FedAvg: McMahan et al., "Communication-efficient learning of deep networks from decentralized data" (AISTATS 2017).

Algorithm 1: the server's next model is the mean of the clients' models after local training, weighted by their numbers of
examples: w_{t+1} = Σ_k (n_k / n) w_{t+1}^k.
"""

from __future__ import annotations

from aggregator.core.accumulator import Accumulator, WeightedMean
from aggregator.core.config import StrategyConfig
from protos.convert import Scalars
from protos.tensors import Parameters, Signature


class FedAvg:
    def __init__(self, config: StrategyConfig) -> None:
        self._config = config

    def fit_config(self, round_number: int) -> Scalars:
        return self._config.local.as_scalars()

    def accumulator(self, signature: Signature) -> Accumulator:
        return WeightedMean(signature)

    def next_model(self, current: Parameters, aggregate: Parameters) -> Parameters:
        return aggregate
