"""A spool in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class MemorySpool:
    """Counts how many are open, for tests that want to see them closed."""

    open = 0

    def __init__(self, length: int, dtype: np.dtype[Any], most_rows: int) -> None:
        self._matrix = np.zeros((most_rows, length), dtype)
        self._filled = 0
        MemorySpool.open += 1

    def append(self, row: NDArray[Any]) -> None:
        self._matrix[self._filled] = row
        self._filled += 1

    def __len__(self) -> int:
        return self._filled

    @property
    def rows(self) -> NDArray[Any]:
        return self._matrix[: self._filled]

    def close(self) -> None:
        MemorySpool.open -= 1
