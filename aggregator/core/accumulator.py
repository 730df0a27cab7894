"""Accumulators: what an aggregation rule keeps of the updates it has seen.

A linear rule keeps one accumulator of the size of the model, however many clients there are. Its sums are exact, so that the
order in which updates arrive can't change one bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core import kernels
from aggregator.core.exact_sum import ExactSum, TooLarge
from aggregator.core.strategies.base import Observer, UpdateRejected
from protos.tensors import Array, Parameters, Signature

INTEGER_LIMIT = 2**62
"""|x|·w of one update is below it; so a mean is, and low limbs are below twice of it."""
LOW_BITS = 2**32 - 1


class AccumulatorOverflow(UpdateRejected):
    """An update that holds floating numbers beyond 2^63, or integers that times its examples reach 2^62. It has changed nothing."""


class WeightedMean:
    """The mean of updates, each weighted by its number of examples (McMahan et al. 2017, algorithm 1, last line of the server).

    Floating tensors are summed exactly (see `ExactSum`), and the mean is rounded to their dtype. Integer and bool tensors are
    summed exactly and rounded half to even; they keep their dtype.
    """

    def __init__(self, signature: Signature, *, compiled: bool | None = None) -> None:
        """`compiled`: whether to use numba if it is installed; None leaves it to the size. The result is the same."""
        if compiled is None:
            compiled = signature.num_parameters >= kernels.WORTH_COMPILING
        chosen = kernels.load(compiled=compiled)
        self._sums: dict[str, _FloatSum | _IntegerSum] = {
            spec.name: _FloatSum(spec.shape, np.dtype(spec.dtype), chosen)
            if spec.dtype.startswith("float")
            else _IntegerSum(spec.shape, np.dtype(spec.dtype))
            for spec in signature.tensors
        }
        self._weight = 0

    def add(self, parameters: Mapping[str, Array], num_examples: int, observe: Observer | None = None) -> None:
        """`parameters` fit the signature and are finite (the caller has checked); `num_examples` is at least 1.

        `observe` is shown the update in the same pass over memory. Raises `AccumulatorOverflow`, and is then unchanged.
        """
        self.check(parameters, num_examples)
        for name, sums in self._sums.items():
            try:
                sums.add(parameters[name], num_examples, partial(observe, name) if observe else None)
            except TooLarge:
                self._undo(parameters, num_examples, name)
                raise _too_large(name, num_examples) from None
        self._weight += num_examples

    def subtract(self, parameters: Mapping[str, Array], num_examples: int) -> None:
        """Undo `add`; as sums are exact, nothing of it remains."""
        for name, sums in self._sums.items():
            sums.subtract(parameters[name], num_examples)
        self._weight -= num_examples

    def check(self, parameters: Mapping[str, Array], num_examples: int) -> None:
        """Of integer and bool tensors alone: raises `AccumulatorOverflow` if `add` would."""
        if num_examples < 1:
            raise ValueError("An update weighs at least one example.")
        for name, sums in self._sums.items():
            if isinstance(sums, _IntegerSum) and not sums.fits(parameters[name], num_examples):
                raise _too_large(name, num_examples)

    def _undo(self, parameters: Mapping[str, Array], num_examples: int, failed: str) -> None:
        for name, sums in self._sums.items():
            if name == failed:
                break
            sums.subtract(parameters[name], num_examples)

    def result(self) -> Parameters:
        """The mean, in the dtypes of the signature. Raises `ValueError` before the first update.

        May be called once: the mean is written over the sums, so that there is never room taken for both.
        """
        if not self._weight:
            raise ValueError("No update has been taken in.")
        return {name: sums.mean(self._weight) for name, sums in self._sums.items()}


def _too_large(name: str, num_examples: int) -> AccumulatorOverflow:
    return AccumulatorOverflow(
        f"Tensor {name!r} of the update holds values too large to be averaged over {num_examples:,} examples."
    )


class _FloatSum:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], chosen: kernels.Kernels) -> None:
        self._shape, self._dtype = shape, dtype
        self._sum: ExactSum | None = ExactSum(math.prod(shape), chosen)

    def add(self, array: Array, weight: int, observe: Callable[[int, Array], None] | None) -> None:
        self._open().add(array.reshape(-1), weight, observe)

    def subtract(self, array: Array, weight: int) -> None:
        self._open().subtract(array.reshape(-1), weight)

    def mean(self, weight: int) -> Array:
        total, self._sum = self._open(), None
        return total.mean(weight, self._dtype).reshape(self._shape)

    def _open(self) -> ExactSum:
        if self._sum is None:
            raise ValueError("The mean has been taken already.")
        return self._sum


class _IntegerSum:
    """Σ w·x as high · 2^32 + low, both int64. Only sums that might leave the range of low make use of high."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._low: NDArray[np.int64] = np.zeros(shape, np.int64)
        self._high: NDArray[np.int64] | None = None
        self._bound = 0

    @staticmethod
    def fits(array: Array, weight: int) -> bool:
        """Whatever the other updates hold."""
        return _magnitude(array) * weight < INTEGER_LIMIT

    def add(self, array: Array, weight: int, observe: object) -> None:
        """Integers aren't observed: what they count is no step of training."""
        self._take(array, weight)

    def subtract(self, array: Array, weight: int) -> None:
        self._take(array, -weight)

    def mean(self, weight: int) -> Array:
        quotient, remainder = self._divided(np.int64(weight))
        twice = 2 * remainder
        up = (twice > weight) | ((twice == weight) & (quotient % 2 == 1))
        return np.asarray(quotient + up).astype(self._dtype)

    def _take(self, array: Array, weight: int) -> None:
        size = _magnitude(array) * abs(weight)
        if self._bound + size >= INTEGER_LIMIT:
            self._carry()
        self._bound += size
        self._low += array.astype(np.int64) * np.int64(weight)

    def _carry(self) -> None:
        if self._high is None:
            self._high = np.zeros_like(self._low)
        self._high += self._low >> 32
        self._low &= LOW_BITS
        self._bound = LOW_BITS

    def _divided(self, weight: np.int64) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Quotient, rounded down, and remainder. Of two limbs by long division, eight bits at a time: remainders have up to 55."""
        if self._high is None:
            return np.divmod(self._low, weight)
        self._carry()
        quotient, remainder = np.divmod(self._high, weight)
        for shift in (24, 16, 8, 0):
            digit, remainder = np.divmod((remainder << 8) + (self._low >> shift & 0xFF), weight)
            quotient = (quotient << 8) + digit
        return quotient, remainder


def _magnitude(array: Array) -> int:
    return max(int(array.max(initial=0)), -int(array.min(initial=0)))
