"""Updates kept in a file until a rule has seen them all: what robust rules need, in memory that doesn't grow with the cohort."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FileSpool:
    """A memory-mapped matrix of at most `most_rows` rows. The file has no name: it is gone with the process, however that ends."""

    def __init__(self, length: int, dtype: np.dtype[Any], most_rows: int, folder: Path | None = None) -> None:
        # Sparse: rows that don't come take no room on the disk.
        self._file = tempfile.TemporaryFile(dir=folder, prefix="fedui-spool-")  # noqa: SIM115  # closed by `close`
        self._filled = 0
        self._matrix: NDArray[Any] = (
            np.memmap(self._file, dtype, "w+", shape=(most_rows, length))
            if length and most_rows
            else np.empty((most_rows, 0), dtype)
        )

    def append(self, row: NDArray[Any]) -> None:
        self._matrix[self._filled] = row
        self._filled += 1

    def __len__(self) -> int:
        return self._filled

    @property
    def rows(self) -> NDArray[Any]:
        return self._matrix[: self._filled]

    def close(self) -> None:
        self._matrix = np.empty((0, 0))
        self._file.close()
