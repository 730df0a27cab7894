"""FedTrimmedAvg: Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates" (ICML 2018), option II.

Of each coordinate the ⌊βn⌋ lowest and as many highest values are left out, and the others averaged, unweighted.
Default β = 0.2, as flwr and `scipy.stats.trim_mean`. Tolerates as many wrong updates as are cut from one end.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aggregator.core.spooled import Rows, SpooledAggregator
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig


class TrimmedMean(RuleConfig):
    """The mean of each coordinate without its extremes."""

    title: ClassVar[str] = "Trimmed mean"
    name: Literal["trimmed_mean"] = "trimmed_mean"
    trim: Annotated[float, Field(ge=0, lt=0.5, title="Fraction cut from each end")] = 0.2

    def begin(self, context: RoundContext) -> Aggregator:
        return _TrimmedMean(context, self.trim)

    def explain(self, quorum: int) -> str:
        cut = int(self.trim * quorum)
        if not cut:
            return f"With {quorum} updates nothing is cut: one wrong update can move the model as far as it likes."
        return f"With {quorum} updates, {cut} are cut from each end of every coordinate: up to {cut} may be wrong in any way."


class _TrimmedMean(SpooledAggregator):
    def __init__(self, context: RoundContext, trim: float) -> None:
        super().__init__(context)
        self._trim = trim

    def combine(self, rows: Rows) -> NDArray[Any]:
        cut = int(self._trim * rows.count)
        kept = tuple(range(cut, rows.count - cut))

        def mean(columns: slice) -> NDArray[np.float64]:
            mean = np.empty(columns.stop - columns.start)
            rows.kernels.mean(rows.sorted(columns, kept), mean)
            return mean

        return rows.by_block(mean)
