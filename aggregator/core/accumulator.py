"""Accumulators: what an aggregation rule keeps of the updates it has seen.

A linear rule keeps one accumulator of the size of the model, however many clients there are. Its sums are of integers, so that the
order in which updates arrive can't change one bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core.strategies.base import UpdateRejected
from protos.tensors import Array, Parameters, Signature

COARSE_BITS = 20
FINE_BITS = 61
COARSE_LIMIT = 2.0 ** (62 - COARSE_BITS)
MAX_UPDATES = 2 ** (62 - (FINE_BITS - COARSE_BITS - 1))
INTEGER_LIMIT = 2**62
BLOCK = 65_536
"""Elements worked on at a time, so that temporaries stay in the processor's cache."""


class AccumulatorOverflow(UpdateRejected):
    """An update whose values are too large to be summed exactly. It has changed nothing."""


class WeightedMean:
    """The mean of updates, each weighted by its number of examples (McMahan et al. 2017, algorithm 1, last line of the server).

    Floating tensors: w·x is split into a multiple of 2⁻²⁰ and a rest that is kept as a multiple of 2⁻⁶¹; both are summed as int64,
    exactly. So w·x may reach 2⁴² (checked over the sum), and the rounding of the rest adds at most 2⁻⁶² per update: far below
    one unit in the last place of any float32 above 2⁻³⁰ in size. Integer and bool tensors are summed exactly and rounded half
    to even; they keep their dtype.

    Source of the splitting: Demmel and Nguyen, "Fast reproducible floating-point summation" (2013), with two fixed bins.
    """

    def __init__(self, signature: Signature) -> None:
        self._sums: dict[str, _FloatSum | _IntegerSum] = {
            spec.name: (_FloatSum if spec.dtype.startswith("float") else _IntegerSum)(spec.shape, np.dtype(spec.dtype))
            for spec in signature.tensors
        }
        self._weight = 0
        self._updates = 0

    def add(self, parameters: Mapping[str, Array], num_examples: int) -> None:
        """`parameters` fit the signature and are finite (the caller has checked); `num_examples` is at least 1.

        Raises `AccumulatorOverflow`, and is then unchanged.
        """
        magnitudes = self.check(parameters, num_examples)
        for name, sums in self._sums.items():
            sums.total_magnitude += magnitudes[name]
            sums.add(parameters[name], num_examples)
        self._weight += num_examples
        self._updates += 1

    def check(self, parameters: Mapping[str, Array], num_examples: int) -> dict[str, float]:
        """Whether `add` would take the update in: returns its magnitudes, or raises `AccumulatorOverflow`."""
        if num_examples < 1:
            raise ValueError("An update weighs at least one example.")
        if self._updates >= MAX_UPDATES:
            raise AccumulatorOverflow(f"More than {MAX_UPDATES:,} updates can't be summed exactly.")
        magnitudes = {name: sums.magnitude(parameters[name], num_examples) for name, sums in self._sums.items()}
        for name, sums in self._sums.items():
            if sums.total_magnitude + magnitudes[name] >= sums.limit:
                raise AccumulatorOverflow(
                    f"Tensor {name!r} of the update holds values too large to be averaged over {num_examples:,} examples."
                )
        return magnitudes

    def result(self) -> Parameters:
        """The mean, in the dtypes of the signature. Raises `ValueError` before the first update."""
        if not self._weight:
            raise ValueError("No update has been taken in.")
        return {name: sums.mean(self._weight) for name, sums in self._sums.items()}


class _FloatSum:
    limit: float = COARSE_LIMIT

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.total_magnitude: float = 0.0
        self._shape, self._dtype = shape, dtype
        self._coarse = np.zeros(math.prod(shape), np.int64)
        self._fine = np.zeros(math.prod(shape), np.int64)

    def magnitude(self, array: Array, weight: int) -> float:
        return float(max(array.max(initial=0), -array.min(initial=0))) * weight

    def add(self, array: Array, weight: int) -> None:
        flat = array.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = slice(start, start + BLOCK)
            product = flat[block].astype(np.float64)
            product *= weight
            coarse = np.rint(np.ldexp(product, COARSE_BITS))
            self._coarse[block] += coarse.astype(np.int64)
            product -= np.ldexp(coarse, -COARSE_BITS)
            self._fine[block] += np.rint(np.ldexp(product, FINE_BITS)).astype(np.int64)

    def mean(self, weight: int) -> Array:
        total = np.ldexp(self._coarse.astype(np.float64), -COARSE_BITS)
        total += np.ldexp(self._fine.astype(np.float64), -FINE_BITS)
        total /= weight
        return total.astype(self._dtype).reshape(self._shape)


class _IntegerSum:
    limit: float = INTEGER_LIMIT

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.total_magnitude: float = 0
        self._dtype = dtype
        self._sum: NDArray[np.int64] = np.zeros(shape, np.int64)

    def magnitude(self, array: Array, weight: int) -> int:
        return max(int(array.max(initial=0)), -int(array.min(initial=0))) * weight

    def add(self, array: Array, weight: int) -> None:
        self._sum += array.astype(np.int64) * np.int64(weight)

    def mean(self, weight: int) -> Array:
        quotient, remainder = np.divmod(self._sum, np.int64(weight))
        twice = 2 * remainder
        up = (twice > weight) | ((twice == weight) & (quotient % 2 == 1))
        return np.asarray(quotient + up).astype(self._dtype)
