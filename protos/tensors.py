"""Tensors on the wire: raw little-endian buffers behind a signature.

The bytes of a model are the bytes of its tensors, C-contiguous and little-endian, one after the other in the order of the
signature, each beginning at a multiple of `ALIGNMENT` so that `decode` can hand out views of the buffer without a copy.
Nothing here can run code: there is no pickle, and a buffer that doesn't fit its signature raises `CodecError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos import limits

Array = NDArray[Any]
Parameters = dict[str, Array]
"""Named arrays in the order of their signature."""

ALIGNMENT = 64
FINITE_BLOCK = 2**18
AUXILIARY = "~"
"""The names of tensors that travel beside a model begin with it (a method's control variates); those of a model don't."""
OPEN: tuple[int, ...] = (-1,)
"""The shape, in an app's signature, of a uint8 tensor that has another length in every model: an ensemble of trees, say."""
DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    )
}  # fmt: skip


class CodecError(ValueError):
    """Bytes or arrays that don't fit their signature, or a signature that breaks a limit."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype (a key of `DTYPES`) and shape of one tensor. The shape `OPEN` declares bytes of any length up to a limit."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > limits.MAX_NAME_LENGTH:
            raise CodecError(f"A tensor's name has 1 to {limits.MAX_NAME_LENGTH} characters, not {len(self.name)}.")
        if limits.NUL in self.name:
            raise CodecError(f"The name of tensor {self.name!r} holds the character NUL.")
        if self.dtype not in DTYPES:
            raise CodecError(f"Tensor {self.name!r} has dtype {self.dtype!r}; supported are {', '.join(DTYPES)}.")
        if len(self.shape) > limits.MAX_DIMENSIONS:
            raise CodecError(
                f"Tensor {self.name!r} has {len(self.shape)} dimensions; at most {limits.MAX_DIMENSIONS} are allowed."
            )
        if self.is_open and self.dtype != "uint8":
            raise CodecError(f"Tensor {self.name!r} of open length has dtype {self.dtype}; only uint8 may be open.")
        if any(n < 0 for n in self.shape) and not self.is_open:
            raise CodecError(f"Tensor {self.name!r} has a negative dimension: {self.shape}.")

    @property
    def is_open(self) -> bool:
        return self.shape == OPEN

    @property
    def nbytes(self) -> int:
        """Of an open tensor, the most it may have."""
        return limits.MAX_OPEN_BYTES if self.is_open else math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def difference(self, other: TensorSpec) -> str:
        """As of `Signature`, of tensors with the same name."""
        if other.dtype != self.dtype:
            return f"tensor {self.name!r} has dtype {other.dtype}, not {self.dtype}"
        return f"tensor {self.name!r} has shape {other.shape}, not {self.shape}" if other.shape != self.shape else ""

    def misfit(self, concrete: TensorSpec) -> str:
        """As of `Signature`, of tensors with the same name."""
        if not self.is_open or concrete.dtype != self.dtype:
            return self.difference(concrete)
        if concrete.is_open or len(concrete.shape) != 1:
            return f"tensor {self.name!r} has shape {concrete.shape}, where a number of bytes is expected"
        if concrete.nbytes > limits.MAX_OPEN_BYTES:
            return f"tensor {self.name!r} has {concrete.nbytes:,} bytes; the limit is {limits.MAX_OPEN_BYTES:,}"
        return ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Signature:
    """The tensors of a model, in order. Raises `CodecError` on a repeated name or a model over the limits."""

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if len(self.tensors) > limits.MAX_TENSORS:
            raise CodecError(f"A model has at most {limits.MAX_TENSORS} tensors, not {len(self.tensors)}.")
        names = [spec.name for spec in self.tensors]
        if len(set(names)) != len(names):
            raise CodecError("Two tensors of the model have the same name.")
        if self.size > limits.MAX_MODEL_BYTES:
            raise CodecError(f"The model has {self.size:,} bytes; the limit is {limits.MAX_MODEL_BYTES:,}.")

    @property
    def size(self) -> int:
        """Bytes of the encoded model, padding included. With an open tensor, the most they may be."""
        return sum(_padded(spec.nbytes) for spec in self.tensors)

    @property
    def is_open(self) -> bool:
        """Some tensor's length is left open: this is an app's declaration, and no model's own signature."""
        return any(spec.is_open for spec in self.tensors)

    @property
    def num_parameters(self) -> int:
        """Elements of the tensors whose size is known."""
        return sum(math.prod(spec.shape) for spec in self.tensors if not spec.is_open)

    @classmethod
    def of(cls, parameters: Mapping[str, Array]) -> Signature:
        """The signature that `parameters` have."""
        return cls(tuple(TensorSpec(name, array.dtype.name, array.shape) for name, array in parameters.items()))

    @classmethod
    def from_json(cls, tensors: Sequence[Mapping[str, Any]]) -> Signature:
        """The inverse of `to_json`."""
        return cls(tuple(TensorSpec(t["name"], t["dtype"], tuple(t["shape"])) for t in tensors))

    def to_json(self) -> list[dict[str, Any]]:
        return [{"name": t.name, "dtype": t.dtype, "shape": list(t.shape)} for t in self.tensors]

    def difference(self, other: Signature) -> str:
        """What `other` has otherwise, in words for an operator; empty when equal."""
        return self._first_difference(other, TensorSpec.difference)

    def misfit(self, concrete: Signature) -> str:
        """Why a model of the signature `concrete` is none of this one's, in words for an operator; empty if it is.

        They are equal, but for the lengths that are open here.
        """
        return self._first_difference(concrete, TensorSpec.misfit)

    def _first_difference(self, other: Signature, compare: Callable[[TensorSpec, TensorSpec], str]) -> str:
        mine, theirs = {t.name: t for t in self.tensors}, {t.name: t for t in other.tensors}
        if missing := [name for name in mine if name not in theirs]:
            return f"tensor {missing[0]!r} is missing"
        if extra := [name for name in theirs if name not in mine]:
            return f"tensor {extra[0]!r} is not part of the model"
        for name, spec in mine.items():
            if difference := compare(spec, theirs[name]):
                return difference
        return "" if list(mine) == list(theirs) else "the tensors come in another order"

    def ranges(self) -> Iterator[tuple[TensorSpec, int]]:
        """Each tensor with the offset in bytes of its first element."""
        offset = 0
        for spec in self.tensors:
            yield spec, offset
            offset += _padded(spec.nbytes)


def encode(parameters: Mapping[str, Array]) -> bytearray:
    """The bytes of `parameters`, to be read back by `decode` with `Signature.of(parameters)`."""
    signature = Signature.of(parameters)
    buffer = bytearray(signature.size)
    for (spec, offset), array in zip(signature.ranges(), parameters.values(), strict=True):
        view = np.frombuffer(buffer, DTYPES[spec.dtype], math.prod(spec.shape), offset).reshape(spec.shape)
        view[...] = array
    return buffer


def decode(buffer: bytes | bytearray | memoryview, signature: Signature) -> Parameters:
    """Read-only views of `buffer` as named arrays, without a copy.

    Raises `CodecError` if the buffer's length is not that of the signature, or the signature leaves it open.
    """
    if signature.is_open:
        raise CodecError("The signature leaves a length open: a model is read by its own signature.")
    if len(buffer) != signature.size:
        raise CodecError(f"The model has {len(buffer):,} bytes; its signature says {signature.size:,}.")
    parameters: Parameters = {}
    for spec, offset in signature.ranges():
        array = np.frombuffer(buffer, DTYPES[spec.dtype], math.prod(spec.shape), offset).reshape(spec.shape)
        array.flags.writeable = False
        parameters[spec.name] = array
    return parameters


def first_non_finite(parameters: Mapping[str, Array]) -> str | None:
    """The name of a tensor that holds NaN or infinity, or None. A bool buffer may hold only 0 and 1."""
    for name, array in parameters.items():
        if array.dtype.kind == "f" and not is_finite(array.reshape(-1)):
            return name
        if array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
            return name
    return None


def is_finite(values: Array) -> bool:
    """A sum is finite only if all its terms are, and takes a tenth of the time. Of huge ones it may not be: then all are looked at,

    in parts: what is found of each is a byte a value, which for the whole would be a quarter of the model.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return True
    return all(np.isfinite(values[i : i + FINITE_BLOCK]).all() for i in range(0, values.size, FINITE_BLOCK))


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
