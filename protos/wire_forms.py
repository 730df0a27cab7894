"""Wire forms: what stands for a floating tensor while it travels. `protos.encodings` says which, and what becomes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.tensors import CodecError

SCALE_BLOCK = 1_024
"""Values that share one scale in int8."""
CHUNK = 128 * SCALE_BLOCK
"""Values worked on at a time, here and in sums: they stay in the processor's cache, and memory doesn't grow with the model."""

Buffer = bytes | bytearray | memoryview
Values = Callable[[int, int], NDArray[Any]]
"""The values from `start` to `stop` of a flat tensor."""


class OutOfRange(ValueError):
    """A value that the form can't hold."""

    def __init__(self, largest: float) -> None:
        self.largest = largest


class WireForm(ABC):
    """What stands for one tensor of `size` values, in the order of the flat tensor. `attach` says where its bytes are."""

    def __init__(self, size: int) -> None:
        self.size = size

    @property
    @abstractmethod
    def nbytes(self) -> int: ...

    @abstractmethod
    def attach(self, buffer: Buffer, offset: int) -> None: ...

    @abstractmethod
    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Exact, in whichever dtype holds them."""

    @abstractmethod
    def write(self, start: int, values: NDArray[Any], random: np.random.Generator) -> None:
        """`start` is a multiple of `CHUNK`. What is out of range becomes an infinity."""

    def fill(self, values: Values, random: np.random.Generator) -> None:
        """Write the whole tensor. Raises `OutOfRange`."""
        for start in range(0, self.size, CHUNK):
            chunk = values(start, min(start + CHUNK, self.size))
            with np.errstate(over="ignore", invalid="ignore"):  # seen by what is read back
                self.write(start, chunk, random)
                back = self.read(start, start + chunk.size)
            if not np.isfinite(back).all():
                raise OutOfRange(float(np.abs(chunk).max()))

    def check(self, name: str) -> None:  # noqa: B027  # most forms have nothing that could be wrong
        """Raises `CodecError` for bytes that no encoder writes."""


class Raw(WireForm):
    """The values themselves, in the tensor's dtype or as float16."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        super().__init__(size)
        self._dtype = dtype

    @property
    def nbytes(self) -> int:
        return self.size * self._dtype.itemsize

    def attach(self, buffer: Buffer, offset: int) -> None:
        self._values = np.frombuffer(buffer, self._dtype, self.size, offset)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._values[start:stop]

    def write(self, start: int, values: NDArray[Any], random: np.random.Generator) -> None:
        self._values[start : start + values.size] = values


class BFloat16(WireForm):
    """The upper 16 of the 32 bits of the value as float32: its range, and 8 bits of its significand."""

    @property
    def nbytes(self) -> int:
        return 2 * self.size

    def attach(self, buffer: Buffer, offset: int) -> None:
        self._bits = np.frombuffer(buffer, "<u2", self.size, offset)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return (self._bits[start:stop].astype("<u4") << 16).view("<f4")

    def write(self, start: int, values: NDArray[Any], random: np.random.Generator) -> None:
        bits = values.astype("<f4").view("<u4")
        self._bits[start : start + values.size] = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


class Int8(WireForm):
    """A float32 scale for each `SCALE_BLOCK` values, all scales first, then a signed byte q from −127 to 127 for each value: q · scale.

    The scale is the largest size in the block over 127, rounded up. q is value / scale rounded down or up at random, so that
    its expectation is the value (Alistarh et al., "QSGD: Communication-efficient SGD via gradient quantization and
    encoding", 2017, section 3.1, with 127 levels and the largest size in place of the norm). It is off by less than a scale.
    """

    @property
    def nbytes(self) -> int:
        return 4 * self._num_scales + self.size

    @property
    def _num_scales(self) -> int:
        return -(-self.size // SCALE_BLOCK)

    def attach(self, buffer: Buffer, offset: int) -> None:
        self._scales = np.frombuffer(buffer, "<f4", self._num_scales, offset)
        self._codes = np.frombuffer(buffer, np.int8, self.size, offset + 4 * self._num_scales)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        first, last = start // SCALE_BLOCK, -(-stop // SCALE_BLOCK)
        scales = self._scales[first:last].astype(np.float64).repeat(SCALE_BLOCK)
        product: NDArray[np.float64] = scales[start - first * SCALE_BLOCK :][: stop - start] * self._codes[start:stop]
        return product

    def write(self, start: int, values: NDArray[Any], random: np.random.Generator) -> None:
        first, count = start // SCALE_BLOCK, -(-values.size // SCALE_BLOCK)
        blocks = np.zeros((count, SCALE_BLOCK))
        blocks.reshape(-1)[: values.size] = values
        scales = _rounded_up(np.abs(blocks).max(axis=1) / 127)
        self._scales[first : first + count] = scales
        if not np.isfinite(scales).all():
            return
        blocks /= np.where(scales > 0, scales, np.float32(1)).astype(np.float64)[:, np.newaxis]
        blocks += random.random(blocks.shape, np.float32)
        self._codes[start : start + values.size] = np.floor(blocks, out=blocks).reshape(-1)[: values.size]

    def check(self, name: str) -> None:
        if not (np.isfinite(self._scales) & (self._scales >= 0)).all():
            raise CodecError(f"Tensor {name!r} of the update has an int8 scale that is negative, NaN or infinite.")
        if self._codes.min(initial=0) == -128:
            raise CodecError(f"Tensor {name!r} of the update holds −128: int8 values lie between −127 and 127.")


def _rounded_up(values: NDArray[np.float64]) -> NDArray[np.float32]:
    nearest = values.astype("<f4")
    return np.where(nearest < values, np.nextafter(nearest, np.float32(np.inf)), nearest)
