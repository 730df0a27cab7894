"""Norm clipping: Sun et al., "Can you really backdoor federated learning?" (2019).

Each step w_k − w is drawn in to at most a norm, then averaged by examples. The norm is given, or the median of the
round's norms, which needs no tuning. It bounds what a client can do in a round, and tolerates no number of them for
ever.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aggregator.core.spooled import Rows, SpooledAggregator
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig


class NormClipping(RuleConfig):
    """The mean of updates whose steps are drawn in to a common length."""

    title: ClassVar[str] = "Norm clipping"
    weighs: ClassVar[bool] = True
    name: Literal["norm_clipping"] = "norm_clipping"
    norm: Annotated[
        float | None, Field(gt=0, title="Longest step", description="Empty: the median of the round's.")
    ] = None

    def begin(self, context: RoundContext) -> Aggregator:
        return _NormClipping(context, self.norm)

    def explain(self, quorum: int) -> str:
        return "Bounds how far one client can move the model in a round; many rounds, or many clients, still can."


class _NormClipping(SpooledAggregator):
    def __init__(self, context: RoundContext, norm: float | None) -> None:
        super().__init__(context)
        self._norm = norm

    def combine(self, rows: Rows) -> NDArray[Any]:
        current = self.current()
        norms = np.sqrt(np.diag(rows.gram(current)))
        longest = float(np.median(norms)) if self._norm is None else self._norm
        shares = rows.num_examples / rows.num_examples.sum()
        drawn = longest / np.maximum(norms, max(longest, np.finfo(float).tiny))
        return rows.combination(shares * drawn, current)
