"""The wire form of which only the largest values are sent: their places and sizes; the others are 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.tensors import CodecError
from protos.wire_forms import CHUNK, Buffer, OutOfRange, WireForm

PAIR_BYTES = 8
_UPPER = 1 << 15
_LOWER = 1 << 16


def num_kept(size: int, keep: float) -> int:
    """Values of a tensor of `size` that are sent: the fraction `keep`, rounded up."""
    return min(size, math.ceil(size * keep))


class TopK(WireForm):
    """The places of `count` values as uint32, ascending, then the values as float32 in the same order.

    The values are those of the largest sizes; of equal ones, the first in the tensor.
    """

    def __init__(self, size: int, count: int) -> None:
        super().__init__(size)
        self._count = count

    @property
    def nbytes(self) -> int:
        return PAIR_BYTES * self._count

    def attach(self, buffer: Buffer, offset: int) -> None:
        self._places = np.frombuffer(buffer, "<u4", self._count, offset)
        self._values = np.frombuffer(buffer, "<f4", self._count, offset + 4 * self._count)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        dense = np.zeros(stop - start, np.float32)
        first, last = np.searchsorted(self._places, np.array([start, stop], self._places.dtype))
        dense[self._places[first:last] - start] = self._values[first:last]
        return dense

    def move_largest_from(self, values: NDArray[np.float32]) -> None:
        """Send the largest of `values`, and leave 0 in their places. Raises `OutOfRange` where one isn't finite."""
        least, ties = _least_of_largest(values, self._count)
        filled = 0
        for start in range(0, self.size, CHUNK):
            sizes = _sizes(values[start : start + CHUNK])
            chosen = sizes > least
            if ties and (equal := np.flatnonzero(sizes == least)[:ties]).size:
                chosen[equal] = True
                ties -= equal.size
            places = np.flatnonzero(chosen)
            self._places[filled : filled + places.size] = places + start
            filled += places.size
        self._values[:] = values[self._places]
        if not np.isfinite(self._values).all():
            raise OutOfRange(float(np.abs(self._values).max()))
        values[self._places] = 0

    def write(self, start: int, values: NDArray[Any], random: np.random.Generator) -> None:
        raise NotImplementedError("Which values are the largest is known when all are there: move_largest_from.")

    def check(self, name: str) -> None:
        if self._count and int(self._places[-1]) >= self.size:
            raise CodecError(f"Tensor {name!r} of the update has a value at {self._places[-1]:,} of {self.size:,}.")
        if not (self._places[1:] > self._places[:-1]).all():
            raise CodecError(f"The places of tensor {name!r} of the update don't ascend: each is sent once, in order.")


def _sizes(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """The bits of |x|, which are in the order of the sizes; those of NaN and infinity come last."""
    return values.view(np.uint32) & np.uint32(0x7FFFFFFF)


def _least_of_largest(values: NDArray[np.float32], count: int) -> tuple[np.uint32, int]:
    """The least size among those of the `count` largest, and how many of just this size are among them.

    Two histograms, of the upper and then the lower halves of the bits: in memory that doesn't grow with the tensor.
    """
    upper, above = _bucket(values, count, None)
    lower, rest = _bucket(values, count - above, upper)
    return np.uint32(upper << 16 | lower), count - above - rest


def _bucket(values: NDArray[np.float32], count: int, upper: int | None) -> tuple[int, int]:
    """The half in which the `count`-th largest lies, and how many are above; of all, or of those with this upper half."""
    counts = np.zeros(_UPPER if upper is None else _LOWER, np.int64)
    for start in range(0, values.size, CHUNK):
        sizes = _sizes(values[start : start + CHUNK])
        halves = sizes >> 16 if upper is None else sizes[sizes >> 16 == upper] & 0xFFFF
        counts += np.bincount(halves, minlength=counts.size)
    at_least = np.cumsum(counts[::-1])[::-1]
    bucket = int(np.flatnonzero(at_least >= count)[-1])
    return bucket, int(at_least[bucket] - counts[bucket])
