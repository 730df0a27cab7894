"""Bulyan: El Mhamdi, Guerraoui and Rouault, "The hidden vulnerability of distributed learning in Byzantium" (ICML 2018).

Krum selects θ = n − 2f updates, one after another without putting back; then each coordinate of the aggregate is the
mean of the β = θ − 2f selected values nearest to their median. Tolerates f wrong updates while n ≥ 4f + 3.

`selection` "iterated" runs Krum anew on what is left, as the paper and flwr's older strategy do; "once" takes the θ
lowest scores of a single run, as flwr's newer one.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aggregator.core.sorting import sorted_rows
from aggregator.core.spooled import Rows, SpooledAggregator, squared_distances
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig
from aggregator.core.strategies.krum import Malicious, krum_scores

Selection = Literal["iterated", "once"]


class Bulyan(RuleConfig):
    """Krum's choice of updates, then a trimmed mean around their median."""

    title: ClassVar[str] = "Bulyan"
    name: Literal["bulyan"] = "bulyan"
    malicious: Malicious = 0
    selection: Annotated[Selection, Field(title="Selection by Krum")] = "iterated"

    def fewest_updates(self) -> int:
        return 4 * self.malicious + 3

    def begin(self, context: RoundContext) -> Aggregator:
        return _Bulyan(context, self)

    def explain(self, quorum: int) -> str:
        return f"Tolerates {self.malicious} wrong updates of at least {self.fewest_updates()} (n ≥ 4f + 3)."


class _Bulyan(SpooledAggregator):
    def __init__(self, context: RoundContext, config: Bulyan) -> None:
        super().__init__(context)
        self._config = config

    def combine(self, rows: Rows) -> NDArray[Any]:
        distances = squared_distances(rows.gram(self.current()))
        selected = self._select(distances)
        nearest = max(1, len(selected) - 2 * self._config.malicious)
        return rows.by_block(lambda block: mean_around_median(block[selected], nearest))

    def _select(self, distances: NDArray[np.float64]) -> list[int]:
        malicious = self._config.malicious
        wanted = max(1, len(distances) - 2 * malicious)
        if self._config.selection == "once":
            return sorted(np.argsort(krum_scores(distances, malicious), kind="stable")[:wanted].tolist())
        left = list(range(len(distances)))
        selected = []
        for _ in range(wanted):
            scores = krum_scores(distances[np.ix_(left, left)], malicious) if len(left) > 1 else np.zeros(1)
            selected.append(left.pop(int(np.argmin(scores))))
        return sorted(selected)


def mean_around_median(block: NDArray[Any], nearest: int) -> NDArray[Any]:
    """Of each column the mean of the `nearest` values to its median. Destroys `block`, shape (K, width).

    In a sorted column these are neighbours: a window of that many, moved up while the value it leaves is further from
    the median than the one it takes in.
    """
    count = len(block)
    rows = sorted_rows(block, tuple(range(count)))
    median = rows[(count - 1) // 2] * 0.5 + rows[count // 2] * 0.5
    total: NDArray[np.float64] = np.add.reduce(rows[:nearest], axis=0, dtype=np.float64)
    for low, high in zip(rows, rows[nearest:], strict=False):
        total += np.where(median - low > high - median, high.astype(np.float64) - low, 0.0)
    total /= nearest
    return total
