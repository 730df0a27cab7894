"""The inner loops of aggregation, twice: in NumPy, and in machine code where numba is installed.

Both do the same arithmetic. What the sums are made of is the same to the last bit; sketches differ by rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

WORTH_COMPILING = 1_000_000
"""Parameters of a model from which on it pays to load the compiled kernels, which takes some seconds the first time."""


class Kernels(Protocol):
    """Arrays are one-dimensional and contiguous; `values` are float32 or float64, aligned."""

    def accumulate(
        self,
        values: NDArray[Any],
        factor: float,
        sums: NDArray[np.int64],
        most: float,
        index: NDArray[np.int64],
        rest: NDArray[np.float64],
    ) -> tuple[int, int, float]:
        """Add each value · factor, rounded to the nearest integer, to its sum; what that leaves over goes to `index`, `rest`.

        Stops before a block of values that holds one larger than `most`, or for whose rests `index` and `rest` may have
        no room left; they have room for the first block at least. Returns the number of values done, of rests left
        over, and the largest size of a value done.
        """
        ...

    def settle(
        self, index: NDArray[np.int64], rest: NDArray[np.float64], plane: NDArray[np.int32], upper: NDArray[Any]
    ) -> int:
        """Add rests, of size at most 1/2, to their digits in `plane`, which counts in units of 2⁻³⁰ of `upper`.

        Carries into `upper`. What is finer than the plane's unit stays in the front of `index` and `rest`, in that
        unit; returns how many.
        """
        ...

    def observe(
        self,
        values: NDArray[np.float32],
        current: NDArray[np.float32],
        signs: NDArray[np.float32],
        rotations: NDArray[np.int64],
        flips: NDArray[np.float32],
        sketch: NDArray[np.float32],
    ) -> tuple[float, float]:
        """Add values − current to the sketch, one rotated and signed row after the other.

        Returns its sum of squares and its largest size.
        """
        ...


class ColumnKernels(Protocol):
    """Matrices are float32 or float64, C-contiguous. Both implementations give the same bits."""

    def sort(
        self, matrix: NDArray[Any], order: NDArray[np.int64], start: int, wanted: tuple[int, ...], result: NDArray[Any]
    ) -> None:
        """Sort each column of matrix[order, start:start + width]; of the sorted rows, `wanted` go to `result`.

        Shapes: matrix (rows, length), result (len(wanted), width). −0 is below 0.
        """
        ...

    def mean_around_median(self, rows: NDArray[Any], nearest: int, result: NDArray[np.float64]) -> None:
        """Of each sorted column of `rows`, shape (K, width), the mean of the `nearest` values to its median.

        These are neighbours: a window of that many, moved up while the value it leaves is further from the median
        than the one it takes in.
        """
        ...

    def mean(self, rows: NDArray[Any], result: NDArray[np.float64]) -> None:
        """Of each column, added up from the first row to the last."""
        ...


@lru_cache(maxsize=2)
def load(*, compiled: bool) -> Kernels:
    """`compiled` uses numba if it is installed. It is not imported before it is wanted: it is large."""
    from aggregator.core.kernels import plain

    if compiled:
        try:
            from aggregator.core.kernels import compiled as machine_code
        except ImportError:
            pass
        else:
            return cast("Kernels", machine_code)
    return cast("Kernels", plain)


@lru_cache(maxsize=2)
def load_columns(*, compiled: bool) -> ColumnKernels:
    """As `load`. Apart from it, so that no process compiles what it doesn't use."""
    from aggregator.core.kernels import plain_columns

    if compiled:
        try:
            from aggregator.core.kernels import compiled_columns
        except ImportError:
            pass
        else:
            return cast("ColumnKernels", compiled_columns)
    return cast("ColumnKernels", plain_columns)
