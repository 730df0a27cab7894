"""The kernels in machine code, by numba. Importing this compiles them, or loads what an earlier process compiled.

No `fastmath`: the sums are the same bits as NumPy's. The loops are written so that the compiler uses vector instructions
nevertheless: a maximum of floats doesn't vectorise, one of their bits does, and non-negative floats sort as their bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from aggregator.core.kernels.jit import compiled, vector

BLOCK = 2_048
"""Values that are added before their largest is known. If it was too large they are taken away again, from the L1 cache."""
FEW = 64
SHIFT = 1.5 * 2.0**52
"""A float64 near this counts in ones: adding it rounds, and leaves the integer in the lower bits (Hacker's Delight, section 17).

Processors convert float64 to int64 one at a time, those with AVX-512 excepted. Additions they do by vectors.
"""
SHIFT_BITS = int(np.float64(SHIFT).view(np.int64))
ROUNDED = 0.999 * 2.0**51
"""Products up to 2^51 stay where float64 counts in ones. A little less, as the limit for values is rounded."""
MASK32 = np.int32(2**31 - 1)
LANES = 256
"""Running sums of squares. With one, each addition would wait for the one before."""

# Of float32 and float64, by their size: integers as wide, what those are without the sign, and the largest number.
BITS: dict[int, Any] = {4: np.int32, 8: np.int64}
MASK: dict[int, Any] = {4: MASK32, 8: np.int64(2**63 - 1)}
LARGEST = {4: float(np.finfo(np.float32).max), 8: float(np.finfo(np.float64).max)}


def accumulate(
    values: NDArray[Any],
    factor: float,
    sums: NDArray[np.int64],
    most: float,
    index: NDArray[np.int64],
    rest: NDArray[np.float64],
) -> tuple[int, int, float]:
    bits = BITS[values.itemsize]
    mask, largest_number = MASK[values.itemsize], LARGEST[values.itemsize]
    limit, limit_rounded = (
        values.dtype.type(min(size, largest_number)).view(bits) for size in (most, min(most, ROUNDED / abs(factor)))
    )
    done, count, largest = _accumulate(values, values.view(bits), mask, factor, sums, limit, limit_rounded, index, rest)
    return done, count, float(bits(largest).view(values.dtype))


def settle(index: NDArray[np.int64], rest: NDArray[np.float64], plane: NDArray[np.int32], upper: NDArray[Any]) -> int:
    return int(_settle(index, rest, plane, upper))


def observe(
    values: NDArray[np.float32],
    current: NDArray[np.float32],
    signs: NDArray[np.float32],
    rotations: NDArray[np.int64],
    flips: NDArray[np.float32],
    sketch: NDArray[np.float32],
) -> tuple[float, float]:
    squares, largest = _observe(values, current, signs, rotations, flips, sketch)
    return squares, float(np.int32(largest).view(np.float32))


def _bitcast(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


_bits: Any = intrinsic(_bitcast)
"""Of a float64, as int64: numba has `view` for arrays and named variables alone."""


@compiled()
def _largest_bits(bits: NDArray[Any], mask: Any) -> Any:
    integer = bits.dtype.type  # else numba makes 64 bits of 32, and vectors of half as many numbers
    largest = integer(0)
    for i in range(bits.size):
        largest = max(largest, integer(bits[i] & mask))
    return largest


@compiled()
def _add_rounded(
    values: NDArray[Any], bits: NDArray[Any], mask: Any, factor: float, sums: NDArray[np.int64], sign: int
) -> tuple[Any, Any]:
    """Sums += sign · round(values · factor), for products up to `ROUNDED`; sums are nonsense if one is larger.

    `sign` 0 adds; −1 takes away what 0 has added, also where it was nonsense: the same instructions make the same
    numbers again. Returns 0 if all products were integers, and the largest of the values' bits.
    """
    left = np.int64(0)
    integer = bits.dtype.type
    largest = integer(0)
    for i in range(values.size):
        product = np.float64(values[i]) * factor
        shifted = product + SHIFT
        left |= _bits(product - (shifted - SHIFT))
        sums[i] += ((_bits(shifted) - SHIFT_BITS) ^ sign) - sign
        largest = max(largest, integer(bits[i] & mask))
    return left, largest


@compiled()
def _add_rounded_in_halves(
    values: NDArray[Any], bits: NDArray[Any], mask: Any, factor: float, sums: NDArray[np.int64], sign: int
) -> tuple[Any, Any]:
    """As `_add_rounded`, for products up to 2^63: first what of a product are multiples of 2^32, then what is left."""
    left = np.int64(0)
    integer = bits.dtype.type
    largest = integer(0)
    for i in range(values.size):
        product = np.float64(values[i]) * factor
        upper = product * 2.0**-32 + SHIFT
        below = product - (upper - SHIFT) * 2.0**32
        lower = below + SHIFT
        left |= _bits(below - (lower - SHIFT))
        sums[i] += ((((_bits(upper) - SHIFT_BITS) << 32) + (_bits(lower) - SHIFT_BITS)) ^ sign) - sign
        largest = max(largest, integer(bits[i] & mask))
    return left, largest


@compiled()
def _take_rests(
    values: NDArray[Any], factor: float, start: int, count: int, index: NDArray[np.int64], rest: NDArray[np.float64]
) -> int:
    """What is left over is rare: a few values at a time are looked at for whether there is any."""
    for first in range(0, values.size, FEW):
        few = values[first : first + FEW]
        if _any_rest(few, factor):
            for i in range(few.size):
                product = np.float64(few[i]) * factor
                whole = np.rint(product)
                if product != whole:
                    index[count] = start + first + i
                    rest[count] = product - whole
                    count += 1
    return count


@compiled()
def _any_rest(values: NDArray[Any], factor: float) -> bool:
    left = np.int64(0)
    for i in range(values.size):
        product = np.float64(values[i]) * factor
        left |= _bits(product - np.rint(product))
    return bool(left != 0)


@compiled(
    *(
        f"Tuple((int64, int64, {bits}))({vector(value, readonly=True)}, {vector(bits, readonly=True)}, {bits}, float64,"
        f"{vector('int64')}, {bits}, {bits}, {vector('int64')}, {vector('float64')})"
        for value, bits in (("float32", "int32"), ("float64", "int64"))
    )
)
def _accumulate(
    values: NDArray[Any],
    bits: NDArray[Any],
    mask: Any,
    factor: float,
    sums: NDArray[np.int64],
    most: Any,
    most_rounded: Any,
    index: NDArray[np.int64],
    rest: NDArray[np.float64],
) -> tuple[int, int, Any]:
    count = 0
    largest = bits.dtype.type(0)
    halves = False
    for start in range(0, values.size, BLOCK):
        end = min(start + BLOCK, values.size)
        if count + end - start > index.size:
            return start, count, largest
        block, block_bits, block_sums = values[start:end], bits[start:end], sums[start:end]
        if not halves:
            left, size = _add_rounded(block, block_bits, mask, factor, block_sums, 0)
            if size > most_rounded:
                _add_rounded(block, block_bits, mask, factor, block_sums, -1)
                halves = True
        if halves:
            left, size = _add_rounded_in_halves(block, block_bits, mask, factor, block_sums, 0)
            if size > most:
                _add_rounded_in_halves(block, block_bits, mask, factor, block_sums, -1)
                return start, count, largest
        largest = max(largest, size)
        if left:
            count = _take_rests(block, factor, start, count, index, rest)
    return values.size, count, largest


@compiled(
    *(
        f"int64({vector('int64')}, {vector('float64')}, {vector('int32')}, {vector(upper)})"
        for upper in ("int64", "int32")
    )
)
def _settle(index: NDArray[np.int64], rest: NDArray[np.float64], plane: NDArray[np.int32], upper: NDArray[Any]) -> int:
    left = 0
    for i in range(index.size):
        place = index[i]
        scaled = rest[i] * 2.0**30
        digit = np.rint(scaled)
        total = np.int64(plane[place]) + np.int64(digit)
        carry = (total + 2**29) >> 30
        plane[place] = total - (carry << 30)
        upper[place] += carry
        if scaled != digit:
            index[left] = place
            rest[left] = scaled - digit
            left += 1
    return left


@compiled()
def _add_squares(values: NDArray[np.float32], lanes: NDArray[np.float64]) -> None:
    for i in range(values.size):
        lanes[i] += np.float64(values[i]) * np.float64(values[i])


@compiled()
def _add_signed(
    row: NDArray[np.float32], signs: NDArray[np.float32], flip: np.float32, sketch: NDArray[np.float32]
) -> None:
    for i in range(row.size):
        sketch[i] += row[i] * signs[i] * flip


@compiled(
    f"Tuple((float64, int32))({vector('float32', readonly=True)}, {vector('float32', readonly=True)},"
    f"{vector('float32', readonly=True)}, {vector('int64', readonly=True)}, {vector('float32', readonly=True)},"
    f"{vector('float32')})"
)
def _observe(
    values: NDArray[np.float32],
    current: NDArray[np.float32],
    signs: NDArray[np.float32],
    rotations: NDArray[np.int64],
    flips: NDArray[np.float32],
    sketch: NDArray[np.float32],
) -> tuple[float, Any]:
    width = sketch.size
    delta = np.empty(width, np.float32)
    lanes = np.zeros(LANES)
    largest = np.int32(0)
    for row in range(rotations.size):
        size = min(width, values.size - row * width)
        ours = values[row * width : row * width + size]
        theirs = current[row * width : row * width + size]
        for i in range(size):
            delta[i] = ours[i] - theirs[i]
        largest = max(largest, _largest_bits(delta[:size].view(np.int32), MASK32))
        for start in range(0, size, LANES):
            _add_squares(delta[start : min(start + LANES, size)], lanes)
        fitting = min(size, width - rotations[row])
        _add_signed(delta[:fitting], signs, flips[row], sketch[rotations[row] :])
        _add_signed(delta[fitting:size], signs[fitting:], flips[row], sketch)
    return lanes.sum(), largest
