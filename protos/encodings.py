"""How an update travels: as parameters or as their difference from the global model, and in how many bits.

The bytes of an update are laid out as those of a model (`protos.tensors`): tensor after tensor in the order of the
signature, each beginning at a multiple of `ALIGNMENT`. Integer and bool tensors, and those beside the model, travel raw,
as the values themselves. What stands for a floating tensor of the model is its *wire form*, one class here for each, and is
as long as shape and encoding say.

With d what the wire form holds, the parameter is d rounded to the tensor's dtype, or of a difference

    parameter = round(float64(current) + float64(d))

with `current` the global model that the client was given. Whoever reads a tensor, whole or in parts, goes by that law, so
that no result depends on the way. Rounding is to nearest, ties to even, except that int8 is rounded at random.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, cast, get_args

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from protos import tensors
from protos.tensors import ALIGNMENT, AUXILIARY, DTYPES, Array, CodecError, Parameters, Signature, TensorSpec

Compression = Literal["none", "float16", "bfloat16", "int8"]

SCALE_BLOCK = 1_024
"""Values that share one scale in int8."""
CHUNK = 128 * SCALE_BLOCK
"""Values worked on at a time, here and in sums: they stay in the processor's cache, and memory doesn't grow with the model."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a run's updates travel. The default is what agents of protocol 1.0 send."""

    compression: Compression = "none"
    delta: bool = False

    def __post_init__(self) -> None:
        if self.compression not in get_args(Compression):
            raise CodecError(
                f"Updates can't travel as {self.compression!r}, which is not known here: update fedagent or the server."
            )

    def __str__(self) -> str:
        what = "differences from the global model" if self.delta else "parameters"
        return what if self.compression == "none" else f"{self.compression} {what}"


PLAIN = Encoding()


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

    def check(self, name: str) -> None:  # noqa: B027  # most forms have nothing that could be wrong
        """Raises `CodecError` for bytes that no encoder writes."""


class _Raw(WireForm):
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


class _BFloat16(WireForm):
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


class _Int8(WireForm):
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


class EncodedTensor(NDArrayOperatorsMixin):
    """A floating tensor that is decoded where it is read: a read-only array to whoever computes with it.

    Flat (`reshape(-1)`), a slice decodes no more than itself, and so do `max`, `min` and `is_finite` chunk by chunk. For everything
    else it is decoded as a whole and behaves as that array does.
    """

    def __init__(self, form: WireForm, shape: tuple[int, ...], dtype: np.dtype[Any], current: Array | None) -> None:
        """`current` is the flat global model's tensor where `form` holds a difference from it."""
        self._form, self._current = form, current
        self.shape, self.dtype = shape, dtype
        self.size, self.ndim = math.prod(shape), len(shape)

    def decode_block(self, start: int, stop: int) -> NDArray[Any]:
        """The values from `start` to `stop` of the flat tensor, in its dtype. A view where they lie there as they are."""
        values = self._form.read(start, stop)
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are found by `is_finite`
            if self._current is not None:
                values = values.astype(np.float64)
                values += self._current[start:stop]
            return values.astype(self.dtype, copy=False)

    def blocks(self) -> Iterator[NDArray[Any]]:
        for start in range(0, self.size, CHUNK):
            yield self.decode_block(start, min(start + CHUNK, self.size))

    def is_finite(self) -> bool:
        return all(bool(np.isfinite(block).all()) for block in self.blocks())

    def max(self, **options: Any) -> Any:
        return self._extreme(np.max, options)

    def min(self, **options: Any) -> Any:
        return self._extreme(np.min, options)

    def _extreme(self, function: Callable[..., Any], options: dict[str, Any]) -> Any:
        if options.keys() <= {"initial"}:
            return function(np.array([function(block) for block in self.blocks()], self.dtype), **options)
        return function(np.asarray(self), **options)

    def reshape(self, *shape: Any, **options: Any) -> Any:
        if shape == (-1,) and not options:
            return EncodedTensor(self._form, (self.size,), self.dtype, self._current)
        return np.asarray(self).reshape(*shape, **options)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: SupportsIndex | slice | Any) -> Any:
        if isinstance(key, slice) and self.ndim == 1 and key.step in (None, 1):
            start, stop, _ = key.indices(self.size)
            return self.decode_block(start, max(start, stop))
        return np.asarray(self)[key]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("An encoded tensor can't be had as an array without making one.")
        array = np.empty(self.size, self.dtype)
        for start in range(0, self.size, CHUNK):
            stop = min(start + CHUNK, self.size)
            array[start:stop] = self.decode_block(start, stop)
        return array.reshape(self.shape).astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        decoded = [np.asarray(value) if isinstance(value, EncodedTensor) else value for value in inputs]
        return getattr(ufunc, method)(*decoded, **options)

    def __getattr__(self, name: str) -> Any:
        """Whatever else an array has. Not the protocols by which others take its memory, which would be gone at once."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


def encoded_size(signature: Signature, encoding: Encoding) -> int:
    """Bytes of an update, padding included; never more than the model's."""
    return sum(_padded(_form_of(spec, encoding).nbytes) for spec in signature.tensors)


def encode(
    parameters: Mapping[str, Array], encoding: Encoding, current: Mapping[str, Array] | None = None, seed: int = 0
) -> bytearray:
    """The bytes of `parameters`, to be read back by `decode`. They are finite (the caller has checked).

    `current` is the global model, of the same signature, and needed for differences. `seed` decides what int8 rounds up.
    Raises `CodecError` for a value that is out of the encoding's range.
    """
    if encoding == PLAIN:
        return tensors.encode(parameters)
    signature = Signature.of(parameters)
    buffer, random = bytearray(encoded_size(signature, encoding)), np.random.default_rng(seed)
    for spec, form, offset in _places(signature, encoding):
        values = np.ascontiguousarray(parameters[spec.name]).reshape(-1)
        base = _base(spec, encoding, current)
        form.attach(buffer, offset)
        for start in range(0, values.size, CHUNK):
            chunk = values[start : start + CHUNK]
            if base is not None:
                chunk = chunk.astype(np.float64) - base[start : start + CHUNK]
            with np.errstate(over="ignore", invalid="ignore"):  # seen by what is read back
                form.write(start, chunk, random)
                back = form.read(start, start + chunk.size)
            if not np.isfinite(back).all():
                raise _out_of_range(spec, encoding, chunk)
    return buffer


def decode(
    buffer: Buffer, signature: Signature, encoding: Encoding, current: Mapping[str, Array] | None = None
) -> Parameters:
    """The update's parameters, read-only. Floating tensors that don't lie in `buffer` as they are stay encoded, and keep `buffer`.

    `current` is the global model, needed for differences. Raises `CodecError` for a buffer that isn't the encoding's.
    """
    if encoding == PLAIN:
        return tensors.decode(buffer, signature)
    if len(buffer) != (size := encoded_size(signature, encoding)):
        raise CodecError(f"The update has {len(buffer):,} bytes; as {encoding} it would have {size:,}.")
    parameters: Parameters = {}
    buffer = memoryview(buffer).toreadonly()
    for spec, form, offset in _places(signature, encoding):
        size, dtype = math.prod(spec.shape), np.dtype(spec.dtype)
        if _travels_encoded(spec):
            form.attach(buffer, offset)
            form.check(spec.name)
            tensor = EncodedTensor(form, spec.shape, dtype, _base(spec, encoding, current))
            parameters[spec.name] = cast(Array, tensor)  # in all that a rule does with an array, it is one
        else:
            parameters[spec.name] = np.frombuffer(buffer, DTYPES[spec.dtype], size, offset).reshape(spec.shape)
    return parameters


def first_non_finite(parameters: Mapping[str, Array]) -> str | None:
    """As `tensors.first_non_finite`, decoding no more than a chunk at a time."""
    raw = {name: array for name, array in parameters.items() if not _is_encoded(array)}
    for name, array in parameters.items():
        if name not in raw and not cast(EncodedTensor, array).is_finite():
            return name
    return tensors.first_non_finite(raw)


def _is_encoded(array: object) -> bool:
    return isinstance(array, EncodedTensor)


def _form_of(spec: TensorSpec, encoding: Encoding) -> WireForm:
    """A tensor that wouldn't get smaller travels raw: float16 in 16 bits."""
    size, dtype = math.prod(spec.shape), DTYPES[spec.dtype]
    if _travels_encoded(spec):
        if encoding.compression == "int8":
            return _Int8(size)
        if encoding.compression == "bfloat16" and dtype.itemsize > 2:
            return _BFloat16(size)
        if encoding.compression == "float16":
            return _Raw(size, DTYPES["float16"])
    return _Raw(size, dtype)


def _travels_encoded(spec: TensorSpec) -> bool:
    """What a method adds beside the model is differences already, and its errors would add up from round to round."""
    return DTYPES[spec.dtype].kind == "f" and not spec.name.startswith(AUXILIARY)


def _base(spec: TensorSpec, encoding: Encoding, current: Mapping[str, Array] | None) -> Array | None:
    """What the tensor's values are differences from, flat."""
    if not encoding.delta or not _travels_encoded(spec):
        return None
    if current is None:
        raise ValueError("Differences need the model that they are from.")
    return current[spec.name].reshape(-1)


def _places(signature: Signature, encoding: Encoding) -> Iterator[tuple[TensorSpec, WireForm, int]]:
    """Each tensor with its wire form and the offset of its first byte."""
    offset = 0
    for spec in signature.tensors:
        form = _form_of(spec, encoding)
        yield spec, form, offset
        offset += _padded(form.nbytes)


def _padded(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _out_of_range(spec: TensorSpec, encoding: Encoding, values: NDArray[Any]) -> CodecError:
    advice = "bfloat16 or int8" if encoding.compression == "float16" else "parameters"
    return CodecError(
        f"Tensor {spec.name!r} of the update can't travel as {encoding}: it holds {np.abs(values).max():.3g}, which is out of "
        f"their range. Let the strategy send {advice}, or try a smaller learning rate."
    )
