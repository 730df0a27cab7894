"""The kernels for columns in NumPy, which compares whole rows at a time at the speed of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core.kernels.networks import network

NETWORK_ROWS = 64
"""Above this many rows a transposed, contiguous sort is quicker."""
INTEGERS: dict[int, Any] = {4: np.int32, 8: np.int64}


def sort(
    matrix: NDArray[Any], order: NDArray[np.int64], start: int, wanted: tuple[int, ...], result: NDArray[Any]
) -> None:
    block = _switched(matrix[order, start : start + result.shape[1]].view(INTEGERS[matrix.itemsize]))
    rows = _by_network(block, wanted) if len(block) <= NETWORK_ROWS else _by_transposition(block)
    out = result.view(block.dtype)
    for place, index in zip(out, wanted, strict=True):
        place[:] = rows[index]
    _switched(out)


def mean_around_median(rows: NDArray[Any], nearest: int, result: NDArray[np.float64]) -> None:
    count = len(rows)
    median = rows[(count - 1) // 2] * 0.5 + rows[count // 2] * 0.5
    start = np.zeros(result.size, np.int32)
    for low, high in zip(rows, rows[nearest:], strict=False):
        start += median - low > high - median
    result[:] = 0
    for k, row in enumerate(
        rows
    ):  # only what is in the window: values from far away would cost the others their digits
        result += np.where((start <= k) & (k < start + nearest), row, 0)
    result /= nearest


def mean(rows: NDArray[Any], result: NDArray[np.float64]) -> None:
    _sum(rows, result)
    result /= len(rows)


def _sum(rows: NDArray[Any], result: NDArray[np.float64]) -> None:
    result[:] = 0
    for row in rows:
        result += row


def _switched(block: NDArray[Any]) -> NDArray[Any]:
    """In place: floating numbers' bits to integers of the same order, in which −0 is below 0, and back."""
    for row in block:
        np.bitwise_xor(row, np.iinfo(row.dtype).max, out=row, where=row < 0)
    return block


def _by_transposition(block: NDArray[Any]) -> list[NDArray[Any]]:
    return list(np.sort(np.ascontiguousarray(block.T), axis=1).T)


def _by_network(block: NDArray[Any], wanted: tuple[int, ...]) -> list[NDArray[Any]]:
    rows, spare = list(block), np.empty_like(block[0])
    for low, high, least, most in network(len(block), wanted):
        if least and most:
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        elif least:
            np.minimum(rows[low], rows[high], out=rows[low])
        else:
            np.maximum(rows[low], rows[high], out=rows[high])
    return rows
