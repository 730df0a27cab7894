"""The kernels for columns in machine code. Importing this compiles them, or loads what an earlier process compiled.

A network's comparators are data here, not code: one compilation serves any number of rows. Columns are worked on in
strips whose rows stay in the L1 and L2 caches while the network runs over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core.kernels.jit import compiled
from aggregator.core.kernels.networks import network

STRIP = 512
INTEGERS: dict[int, Any] = {4: np.int32, 8: np.int64}


def sort(
    matrix: NDArray[Any], order: NDArray[np.int64], start: int, wanted: tuple[int, ...], result: NDArray[Any]
) -> None:
    dtype = INTEGERS[matrix.itemsize]
    comparators = np.array([pair[:2] for pair in network(len(order), wanted)], np.int64).reshape(-1, 2)
    bits = np.asarray(matrix).view(dtype)
    _sort(bits, order, start, comparators, np.array(wanted, np.int64), dtype(np.iinfo(dtype).max), result.view(dtype))


def mean_around_median(rows: NDArray[Any], nearest: int, result: NDArray[np.float64]) -> None:
    _mean_around_median(rows, rows.dtype.type(0.5), nearest, result)


def mean(rows: NDArray[Any], result: NDArray[np.float64]) -> None:
    _mean(rows, result)


@compiled()
def _switch(source: NDArray[Any], target: NDArray[Any], mask: Any) -> None:
    """Floating numbers' bits to integers of the same order, in which −0 is below 0, and back."""
    for i in range(source.size):
        target[i] = source[i] ^ mask if source[i] < 0 else source[i]


@compiled()
def _exchange(low: NDArray[Any], high: NDArray[Any]) -> None:
    for i in range(low.size):
        one, other = low[i], high[i]
        low[i] = min(one, other)
        high[i] = max(one, other)


@compiled(
    *(
        f"void(Array({bits}, 2, 'C', True), Array(int64, 1, 'C'), int64, Array(int64, 2, 'C'), Array(int64, 1, 'C'), {bits},"
        f"Array({bits}, 2, 'C'))"
        for bits in ("int32", "int64")
    )
)
def _sort(
    matrix: NDArray[Any],
    order: NDArray[np.int64],
    start: int,
    comparators: NDArray[np.int64],
    wanted: NDArray[np.int64],
    mask: Any,
    result: NDArray[Any],
) -> None:
    strip = np.empty((order.size, STRIP), result.dtype)
    for first in range(0, result.shape[1], STRIP):
        width = min(STRIP, result.shape[1] - first)
        for k in range(order.size):
            _switch(matrix[order[k], start + first : start + first + width], strip[k, :width], mask)
        for c in range(comparators.shape[0]):
            _exchange(strip[comparators[c, 0], :width], strip[comparators[c, 1], :width])
        for j in range(wanted.size):
            _switch(strip[wanted[j], :width], result[j, first : first + width], mask)


@compiled()
def _add(row: NDArray[Any], total: NDArray[np.float64]) -> None:
    for i in range(row.size):
        total[i] += row[i]


@compiled()
def _move_up(median: NDArray[Any], low: NDArray[Any], high: NDArray[Any], start: NDArray[np.int32]) -> None:
    for i in range(low.size):
        start[i] += median[i] - low[i] > high[i] - median[i]


@compiled()
def _add_window(row: NDArray[Any], k: int, start: NDArray[np.int32], nearest: int, total: NDArray[np.float64]) -> None:
    for i in range(row.size):
        total[i] += row[i] if start[i] <= k < start[i] + nearest else 0.0


@compiled(*(f"void(Array({dtype}, 2, 'C'), Array(float64, 1, 'C'))" for dtype in ("float32", "float64")))
def _mean(rows: NDArray[Any], result: NDArray[np.float64]) -> None:
    for first in range(0, result.size, STRIP):
        total = result[first : first + STRIP]
        total[:] = 0
        for k in range(rows.shape[0]):
            _add(rows[k, first : first + STRIP], total)
        total /= rows.shape[0]


@compiled(
    *(f"void(Array({dtype}, 2, 'C'), {dtype}, int64, Array(float64, 1, 'C'))" for dtype in ("float32", "float64"))
)
def _mean_around_median(rows: NDArray[Any], half: Any, nearest: int, result: NDArray[np.float64]) -> None:
    count = rows.shape[0]
    for first in range(0, result.size, STRIP):
        strip, total = rows[:, first : first + STRIP], result[first : first + STRIP]
        median = strip[(count - 1) // 2] * half + strip[count // 2] * half
        start = np.zeros(total.size, np.int32)
        for k in range(count - nearest):
            _move_up(median, strip[k], strip[k + nearest], start)
        total[:] = 0
        for k in range(count):  # only what is in the window: values from far away would cost the others their digits
            _add_window(strip[k], k, start, nearest, total)
        total /= nearest
