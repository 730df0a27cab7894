"""Sorting networks (Batcher 1968, odd-even merge), without the comparators whose outcome can't reach a wanted row."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=256)
def network(count: int, wanted: tuple[int, ...]) -> tuple[tuple[int, int, bool, bool], ...]:
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
