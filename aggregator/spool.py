"""Updates kept in a file until a rule has seen them all: what robust rules need, in memory that doesn't grow with the cohort."""

from __future__ import annotations

import os
import tempfile
import threading
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
        self._closing = threading.Lock()
        self._matrix: NDArray[Any] = (
            np.memmap(self._file, dtype, "w+", shape=(most_rows, length))
            if length and most_rows
            else np.empty((most_rows, 0), dtype)
        )

    def append(self, row: NDArray[Any]) -> None:
        """Raises `OSError` on a full disk. Not by the mapping: where that finds no room, the system ends the process."""
        if self._filled >= len(self._matrix):
            raise IndexError("The spool is full, or closed.")
        content = np.ascontiguousarray(row, self._matrix.dtype).view(np.uint8)
        place, rest = self._filled * content.size, content.data
        with self._closing:  # what takes too long is closed while it works
            while rest:
                written = os.pwrite(self._file.fileno(), rest, place)
                place, rest = place + written, rest[written:]
        self._filled += 1

    def __len__(self) -> int:
        return self._filled

    @property
    def rows(self) -> NDArray[Any]:
        return self._matrix[: self._filled]

    def close(self) -> None:
        self._matrix = np.empty((0, 0))
        with self._closing:
            self._file.close()
