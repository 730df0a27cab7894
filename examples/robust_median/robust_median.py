"""A strategy of one's own: the coordinate-wise median, refused for fewer clients than the operator trusts."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from aggregator.core.strategies.stacked import StackedRule


class MedianOfMany(StackedRule):
    title: ClassVar[str] = "Median of many"
    name: Literal["median_of_many"] = "median_of_many"
    least: Annotated[int, Field(ge=3, le=10_000, title="Fewest updates for a median")] = 5

    def fewest_updates(self) -> int:
        return self.least

    def combine(self, rows: np.ndarray, num_examples: np.ndarray) -> np.ndarray:
        return np.median(rows, axis=0)
