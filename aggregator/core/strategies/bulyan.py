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

        def around_median(columns: slice) -> NDArray[np.float64]:
            mean = np.empty(columns.stop - columns.start)
            rows.kernels.mean_around_median(rows.sorted(columns, among=selected), nearest, mean)
            return mean

        return rows.by_block(around_median)

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
