"""The kernels in NumPy, in blocks that stay in the processor's cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 16_384


def accumulate(
    values: NDArray[Any],
    factor: float,
    sums: NDArray[np.int64],
    most: float,
    index: NDArray[np.int64],
    rest: NDArray[np.float64],
) -> tuple[int, int, float]:
    count, largest = 0, 0.0
    product, whole, integer = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK, np.int64)
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK]
        size = float(max(block.max(), -block.min()))
        if size > most or count + block.size > index.size:
            return start, count, largest
        largest = max(largest, size)
        if block.size < BLOCK:
            product, whole, integer = product[: block.size], whole[: block.size], integer[: block.size]
        product[:] = block
        product *= factor
        integer[:] = np.rint(product, out=whole)
        sums[start : start + BLOCK] += integer
        (left,) = np.nonzero(product != whole)
        index[count : count + left.size] = left + start
        rest[count : count + left.size] = product[left] - whole[left]
        count += left.size
    return values.size, count, largest


def settle(index: NDArray[np.int64], rest: NDArray[np.float64], plane: NDArray[np.int32], upper: NDArray[Any]) -> int:
    dense = 4 * index.size > plane.size
    if dense:  # all of the plane in turn is quicker than most of it by index
        scaled = np.zeros(plane.size)
        scaled[index] = rest
        scaled *= 2.0**30
    else:
        scaled = rest * 2.0**30
    place = slice(None) if dense else index
    digit = np.rint(scaled)
    scaled -= digit
    total = digit.astype(np.int64)
    total += plane[place]
    carry = (total + 2**29) >> 30
    total -= carry << 30
    plane[place] = total
    upper[place] += carry.astype(upper.dtype)
    (left,) = np.nonzero(scaled)
    rest[: left.size] = scaled[left]
    index[: left.size] = left if dense else index[left]
    return left.size


def observe(
    values: NDArray[np.float32],
    current: NDArray[np.float32],
    signs: NDArray[np.float32],
    rotations: NDArray[np.int64],
    flips: NDArray[np.float32],
    sketch: NDArray[np.float32],
) -> tuple[float, float]:
    width, squares, largest = sketch.size, 0.0, 0.0
    for row, (rotation, flip) in enumerate(zip(rotations.tolist(), flips, strict=True)):
        delta = values[row * width : (row + 1) * width] - current[row * width : (row + 1) * width]
        largest = max(largest, float(delta.max()), -float(delta.min()))
        squares += float(np.square(delta, dtype=np.float64).sum())
        delta *= signs[: delta.size]
        delta *= flip
        fitting = min(delta.size, width - rotation)
        sketch[rotation : rotation + fitting] += delta[:fitting]
        sketch[: delta.size - fitting] += delta[fitting:]
    return squares, largest
