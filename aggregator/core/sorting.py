"""Sorting each column of a block of rows: networks of minima and maxima for few rows, a transposed sort for many.

A network (Batcher 1968, odd-even merge) compares whole rows at a time by `np.minimum` and `np.maximum`, which NumPy
runs at the speed of memory; comparators whose outcome can't reach a wanted row are left out. Measured on one core, 31
× 1e6 float32: 38 ms against 593 ms of `np.median`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NETWORK_ROWS = 64
"""Above this many rows a transposed, contiguous sort is quicker."""


def sorted_rows(block: NDArray[Any], wanted: tuple[int, ...]) -> list[NDArray[Any]]:
    """The rows `wanted` of what `np.sort(block, axis=0)` is, for `block` of shape (K, width), which is destroyed."""
    if block.shape[0] > NETWORK_ROWS:
        columns = np.sort(np.ascontiguousarray(block.T), axis=1)
        return [columns[:, index] for index in wanted]
    rows, spare = list(block), np.empty_like(block[0])
    for low, high, least, most in _network(block.shape[0], wanted):
        if least and most:
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        elif least:
            np.minimum(rows[low], rows[high], out=rows[low])
        else:
            np.maximum(rows[low], rows[high], out=rows[high])
    return [rows[index] for index in wanted]


@lru_cache(maxsize=256)
def _network(count: int, wanted: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
    """The comparators that decide the rows `wanted`, in order, and of each whether its minimum and its maximum are needed."""
    needed, kept = set(wanted), []
    for low, high in reversed(list(_odd_even_merge_sort(count))):
        least, most = low in needed, high in needed
        if least or most:
            needed |= {low, high}
            kept.append((low, high, least, most))
    return tuple(reversed(kept))


def _odd_even_merge_sort(count: int) -> Iterable[tuple[int, int]]:
    """Batcher's network for any number of rows: that of the next power of two without the rows that aren't there."""
    p = 1
    while p < count:
        k = p
        while k >= 1:
            for j in range(k % p, count - k, 2 * k):
                for i in range(min(k, count - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        yield i + j, i + j + k
            k //= 2
        p *= 2
