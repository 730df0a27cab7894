"""Exact sums of floating numbers: whatever comes in whatever order, not one bit of the result depends on it.

A sum of n float32, each times an integer, is kept as Σ = (s + Σ_j d_j 2^(-30 j)) · 2^e for each of the n coordinates: `s`
an int64, `d_j` int32 digits, `e` one exponent of the tensor. It is a long accumulator in fixed point (Kulisch, "Computer
Arithmetic and Validity", 2008, section 8) whose lower digits exist only when they are needed:

- e is chosen by the first update, so that s holds 2^20 examples like it (or 2^8 updates like it, if that is more).
- w·x is exact in float64 for w < 2^29. What of it is a multiple of 2^e is added to s. For numbers spread as a trained
  layer's weights are, that is all of it but for one in some 10^5: s is then all that is read and written, and the sum
  runs at the speed of memory.
- The rest goes to the digits, an array of which is made when the first such rest comes. So no bit is lost, and the
  order of additions can't matter.
- When s might overflow, e grows and the bits that fall out of s go to the digits. So no sum overflows, and a first
  update unlike the others costs time, not precision.
- Values beyond 2^63 are refused when they are met; what of the update has been added is subtracted again.

`mean` rounds the exact sum to the nearest float64, divides by the weight and rounds that to the tensor's dtype: the exact
mean to half a unit in the last place (and 2^-29 of one), of whatever size it is, and bit for bit what it would be for any
other order, exponent or processor.

Memory is 8 bytes a coordinate and 4 for each digit: one in practice, up to eight if somebody sends numbers from one end of
the range to the other. The mean is written over the sums, so that a model of float32 costs 2 to 3 of its size.

float64 tensors go the same way, with w·x rounded to float64 and to multiples of 2^-149.

Speed on one core of a Zen 3 server, which has AVX2 but not AVX-512: the loop by numba takes in 0.5 to 0.6 of the bytes that
`np.copyto` reads in that time; `python -m benchmarks.aggregation` measures the whole. The compiled loops don't need an
instruction that converts float64 to int64 by vectors (see `kernels/compiled.py`).

Choices compared, on another machine whose `np.copyto` reads 12: this 7.5; an int64 and an int32 limb of a fixed scale 6.2,
within one unit only of numbers that the scale suits. One int64 limb of a fixed scale is as fast as this, but either
overflows or is too coarse when weights or numbers aren't what was expected.
Binned sums (Demmel and Nguyen, "Parallel reproducible summation", 2015) always touch two bins, and lose what is below.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core.kernels import Kernels
from protos.tensors import Array

CHUNK = 262_144
"""Values worked on at a time where somebody looks at them next, who finds them in the processor's cache (of the last level)."""
ROOM = 65_536
"""For what of the values is left over. When there is no more, the kernel stops, and goes on once it is settled."""
CAPACITY_BITS = 61
"""|s| stays below 2^61. That leaves room for carries and for doubling when a sum is rounded."""
DIGIT_BITS = 30
FINEST = -149
"""The exponent of the smallest float32: every float32 is a multiple of 2^-149."""
LARGEST = 2.0**63
"""No model holds numbers of that size, and the square of a larger one, which server optimisers take, isn't a float32."""
SHORT = np.int64(2**31)
EXACT = np.int64(2**53)
"""Integers up to this size are float64."""


class TooLarge(ValueError):
    """A value beyond `LARGEST`."""


Observer = Callable[[int, Array], None]
"""Is told where a chunk of an update begins in its tensor, and shown the chunk."""


class ExactSum:
    """Σ w·x over updates x of one floating tensor, flat, with integer weights w ≥ 1."""

    def __init__(self, length: int, kernels: Kernels) -> None:
        self._kernels = kernels
        self._sums = np.zeros(length, np.int64)
        self._digits: list[NDArray[np.int32]] = []
        self._exponent: int | None = None
        self._bound = 0.0
        self._index, self._rest = np.empty(min(length, ROOM), np.int64), np.empty(min(length, ROOM), np.float64)

    def add(self, values: Array, weight: int, observe: Observer | None = None) -> None:
        """`values` are finite. Raises `TooLarge`, and is then unchanged."""
        if self._exponent is None:
            self._exponent = _first_exponent(values, weight)
        largest, stride = 0.0, CHUNK if observe else _stride(values)
        for start in range(0, values.size, stride):
            chunk = values[start : start + stride]
            try:
                largest = max(largest, self._add_chunk(start, _workable(chunk), weight))
            except TooLarge:
                self.subtract(values[:start], weight)
                raise
            if observe:
                observe(start, chunk)
        self._bound += largest * weight

    def subtract(self, values: Array, weight: int) -> None:
        """Undo `add`, of all values or of the first; as sums are exact, nothing of it remains."""
        stride = _stride(values)
        for start in range(0, values.size, stride):
            self._add_chunk(start, _workable(values[start : start + stride]), -weight)

    def mean(self, weight: int, dtype: np.dtype[Any]) -> Array:
        """Σ / weight. Is written over the sums, which are gone: nothing can be added, nor a second mean be taken."""
        sums, length = self._sums, self._sums.size
        mean = sums.view(dtype)[:length]
        for start in range(0, length, CHUNK):
            block = slice(start, start + CHUNK)
            mean[block] = self._rounded(block) / weight
        self._sums, self._digits = np.empty(0, np.int64), []
        del mean  # a view of memory that may now move
        sums.resize(-(-length * dtype.itemsize // sums.itemsize), refcheck=False)
        return sums.view(dtype)[:length]

    def _add_chunk(self, start: int, chunk: Array, weight: int) -> float:
        """Returns the largest size of a value. Raises `TooLarge`, and is then unchanged."""
        done, largest = 0, 0.0
        while done < chunk.size and self._exponent is not None:
            factor = math.ldexp(weight, -self._exponent)
            room = (2.0**CAPACITY_BITS - math.ldexp(self._bound, -self._exponent)) / abs(factor)
            place = slice(start + done, start + chunk.size)
            step, count, size = self._kernels.accumulate(
                chunk[done:], factor, self._sums[place], min(room, LARGEST), self._index, self._rest
            )
            if count:
                self._settle(place, count, self._exponent)
            if not step:
                size = magnitude(chunk[done:])
                if size > LARGEST:
                    self._add_chunk(start, chunk[:done], -weight)
                    raise TooLarge
                self._coarsen(self._exponent, self._bound + size * abs(weight))
            done, largest = done + step, max(largest, size)
        return largest

    def _settle(self, place: slice, count: int, exponent: int) -> None:
        """Add what is left over of a chunk to the digits, from the first to as far as it takes."""
        rest = self._rest[:count]
        rest[:] = np.ldexp(np.rint(np.ldexp(rest, exponent - FINEST)), FINEST - exponent)
        upper: NDArray[Any] = self._sums[place]
        level = 0
        while count:
            if level == len(self._digits):
                self._digits.append(np.zeros(self._sums.size, np.int32))
            digits = self._digits[level][place]
            count = self._kernels.settle(self._index[:count], self._rest[:count], digits, upper)
            upper, level = digits, level + 1

    def _coarsen(self, exponent: int, needed: float) -> None:
        """A larger exponent, for sums up to `needed` and some more. What falls out of the sums goes to the digits."""
        bits = min(max(math.frexp(math.ldexp(needed, -exponent))[1] - CAPACITY_BITS + 8, 1), DIGIT_BITS)
        if len(self._digits) * DIGIT_BITS < exponent + bits - FINEST:
            self._digits.append(np.zeros(self._sums.size, np.int32))
        mask = np.int64((1 << bits) - 1)
        for start in range(0, self._sums.size, CHUNK):
            block = slice(start, start + CHUNK)
            out = self._sums[block] & mask
            self._sums[block] >>= bits
            for digits in self._digits:
                long = (out << DIGIT_BITS) + digits[block]
                digits[block] = long >> bits
                out = long & mask
        self._exponent = exponent + bits

    def _rounded(self, block: slice) -> NDArray[np.float64]:
        """The sums, rounded to the nearest float64."""
        rounded = self._sums[block].astype(np.float64)
        if self._digits:
            index = np.flatnonzero(reduce(np.bitwise_or, (digits[block] for digits in self._digits)) != 0)
            if index.size:
                rounded[index] = _nearest(self._sums[block][index], [digits[block][index] for digits in self._digits])
        rounded *= math.ldexp(1.0, self._exponent or 0)
        return rounded


def magnitude(values: Array) -> float:
    """The largest size of a value; 0 of none."""
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def _first_exponent(values: Array, weight: int) -> int | None:
    """None while all there is is zero."""
    largest = magnitude(values)
    if largest > LARGEST:
        raise TooLarge
    if not largest:
        return None
    bits = max(20, weight.bit_length() + 8)
    return max(FINEST, math.frexp(largest)[1] + bits - CAPACITY_BITS)


def _stride(values: Array) -> int:
    """How many to take at a time: all of them if the kernels take them as they are, for each call costs its time."""
    is_array = type(values) is np.ndarray  # an encoded tensor is decoded in parts
    as_they_are = (
        is_array and values.dtype in (np.float32, np.float64) and values.flags.c_contiguous and values.flags.aligned
    )
    return max(values.size, 1) if as_they_are else CHUNK


def _workable(chunk: Array) -> Array:
    """What the kernels take: aligned float32 or float64, one after the other."""
    return np.require(chunk, np.float64 if chunk.dtype == np.float64 else np.float32, ["C", "A"])


def _nearest(sums: NDArray[np.int64], digits: list[NDArray[np.int32]]) -> NDArray[np.float64]:
    """sums + Σ digits[j] 2^(-30 (j + 1)), rounded once to the nearest float64.

    A window of at least 32 bits is moved down to where the number begins. Of what is below the window, the next digit and
    the sign of the rest decide the rounding, as the digits below one weigh less than one of it.
    """
    window, used = sums.copy(), np.zeros(sums.shape, np.int64)
    for digit in digits:
        short = np.abs(window) < SHORT
        window = np.where(short, (window << DIGIT_BITS) + digit, window)
        used += short
    below = np.zeros_like(window)
    for level in range(len(digits) - 1, -1, -1):
        below = np.where(used <= level, 2 * digits[level].astype(np.int64) + np.sign(below), below)
    fine = window + np.ldexp(below, -DIGIT_BITS - 1)
    coarse = (2 * window + np.sign(below)) / 2
    return np.ldexp(np.where(np.abs(window) <= EXACT, fine, coarse), -DIGIT_BITS * used)
