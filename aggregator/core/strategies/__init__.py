"""Strategies by name. One module each, named after the paper."""

from __future__ import annotations

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import Strategy
from aggregator.core.strategies.fedavg import FedAvg

_REGISTRY: dict[str, type[Strategy]] = {"fedavg": FedAvg}


def build_strategy(config: StrategyConfig) -> Strategy:
    """The strategy that `config` describes."""
    return _REGISTRY[config.algorithm](config)
