"""Krum and Multi-Krum: Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent" (NeurIPS 2017).

An update's score is the sum of its squared distances to its n − f − 2 nearest others. Krum takes the update of the
lowest score; Multi-Krum the mean, weighted by examples, of the `keep` lowest. Both tolerate f wrong updates while 2f
+ 2 < n, and Multi-Krum while it keeps no more than n − f, for else it must keep wrong ones. Krum follows one client:
where data differ, it loses accuracy. Equal scores: the client whose id comes first.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aggregator.core.spooled import Rows, SpooledAggregator, squared_distances
from aggregator.core.strategies.base import Aggregator, RoundContext, RuleConfig

Malicious = Annotated[int, Field(ge=0, le=10_000, title="Malicious clients to tolerate")]


class Krum(RuleConfig):
    """The one update that is nearest to its neighbours."""

    title: ClassVar[str] = "Krum"
    name: Literal["krum"] = "krum"
    malicious: Malicious = 0

    def fewest_updates(self) -> int:
        return 2 * self.malicious + 3

    def begin(self, context: RoundContext) -> Aggregator:
        return _Krum(context, self.malicious, keep=1)

    def explain(self, quorum: int) -> str:
        tolerated = f"Tolerates {self.malicious} wrong updates of at least {self.fewest_updates()} (2f + 2 < n)."
        return f"{tolerated} The model follows a single client."


class MultiKrum(RuleConfig):
    """The mean of the updates that are nearest to their neighbours."""

    title: ClassVar[str] = "Multi-Krum"
    name: Literal["multikrum"] = "multikrum"
    malicious: Malicious = 0
    keep: Annotated[int | None, Field(ge=1, title="Updates kept", description="Empty: all but the malicious.")] = None

    def fewest_updates(self) -> int:
        return max(2 * self.malicious + 3, (self.keep or 0) + self.malicious)

    def begin(self, context: RoundContext) -> Aggregator:
        return _Krum(context, self.malicious, keep=self.keep)

    def explain(self, quorum: int) -> str:
        kept = self.keep or quorum - self.malicious
        bounds = "2f + 2 < n, and no more kept than n − f"
        tolerated = f"Tolerates {self.malicious} wrong updates of at least {self.fewest_updates()} ({bounds})"
        return f"{tolerated}; of {quorum}, {kept} are averaged."


class _Krum(SpooledAggregator):
    def __init__(self, context: RoundContext, malicious: int, keep: int | None) -> None:
        super().__init__(context)
        self._malicious, self._keep = malicious, keep

    def combine(self, rows: Rows) -> NDArray[Any]:
        current = self.current()
        scores = krum_scores(squared_distances(rows.gram(current)), self._malicious)
        chosen = np.argsort(scores, kind="stable")[: self._keep or max(1, rows.count - self._malicious)]
        if len(chosen) == 1:
            return rows.row(int(chosen[0])).copy()
        weights = np.zeros(rows.count)
        weights[chosen] = rows.num_examples[chosen] / rows.num_examples[chosen].sum()
        return rows.combination(weights, current)


def krum_scores(distances: NDArray[np.float64], malicious: int) -> NDArray[np.float64]:
    """Of each row, from the squared distances of every two."""
    neighbours = max(1, len(distances) - malicious - 2)
    scores: NDArray[np.float64] = np.sort(distances, axis=1)[:, 1 : neighbours + 1].sum(axis=1)
    return scores
