"""FedMedian: Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates" (ICML 2018), option I.

Each coordinate of the aggregate is the median of the updates', unweighted; of an even number the mean of the two in
the middle. Tolerates f wrong updates of n while 2f < n. Biased where clients' data differ much.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from numpy.typing import NDArray

from aggregator.core.spooled import Rows, SpooledAggregator
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig


class Median(RuleConfig):
    """The median of each coordinate."""

    title: ClassVar[str] = "Coordinate-wise median"
    name: Literal["median"] = "median"

    def begin(self, context: RoundContext) -> Aggregator:
        return _Median(context)

    def explain(self, quorum: int) -> str:
        return f"With {quorum} updates, up to {(quorum - 1) // 2} may be wrong in any way. All updates count the same."


class _Median(SpooledAggregator):
    def combine(self, rows: Rows) -> NDArray[Any]:
        middle = ((rows.count - 1) // 2, rows.count // 2)

        def middle_of(columns: slice) -> NDArray[Any]:
            low, high = rows.sorted(columns, middle)
            # Half of each, for the sum of two large numbers could overflow.
            median: NDArray[Any] = low if rows.count % 2 else low * 0.5 + high * 0.5
            return median

        return rows.by_block(middle_of)
