"""The short way to a rule of one's own: one function of all updates at once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core.spooled import Rows, SpooledAggregator
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig


class StackedRule(RuleConfig):
    """A rule that works on each coordinate alone, written as one NumPy expression.

    Subclasses give `combine`. They get the coordinates in blocks, so that memory doesn't grow with the model, and the clients in
    the order of their ids, so that the order of arrival changes nothing. Integer and bool tensors are averaged by examples.
    """

    @abstractmethod
    def combine(self, rows: NDArray[Any], num_examples: NDArray[np.int64]) -> NDArray[Any]:
        """Shapes: rows (clients, coordinates), num_examples (clients,); returns (coordinates,)."""

    def begin(self, context: RoundContext) -> Aggregator:
        return _Stacked(self, context)


class _Stacked(SpooledAggregator):
    def __init__(self, rule: StackedRule, context: RoundContext) -> None:
        super().__init__(context)
        self._rule = rule

    def combine(self, rows: Rows) -> NDArray[Any]:
        vector = np.empty(rows.length, rows.dtype)
        for columns in rows.blocks():
            block = rows.block(columns)
            combined = np.asarray(self._rule.combine(block, rows.num_examples))
            if combined.shape != (block.shape[1],):
                raise ValueError(f"combine returned shape {combined.shape} for {block.shape[1]} coordinates")
            vector[columns] = combined
        return vector
