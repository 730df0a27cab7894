"""How an update travels: as parameters or as their difference from the global model, and in how many bits.

The bytes of an update are laid out as those of a model (`protos.tensors`): tensor after tensor in the order of the
signature, each beginning at a multiple of `ALIGNMENT`. Integer and bool tensors, and those beside the model, travel raw,
as the values themselves. What stands for a floating tensor of the model is its *wire form*, one class here for each, and is
as long as shape and encoding say (`protos.wire_forms`).

With d what the wire form holds, the parameter is d rounded to the tensor's dtype, or of a difference

    parameter = round(float64(current) + float64(d))

with `current` the global model that the client was given. Whoever reads a tensor, whole or in parts, goes by that law, so
that no result depends on the way. Rounding is to nearest, ties to even, except that int8 is rounded at random.

Of a *top_k* update only the largest differences travel, the fraction `keep` of each tensor. What is not sent is not lost: it is
the *residual*, which the client keeps and adds to the differences of its next update (Stich et al., "Sparsified SGD with
memory", 2018, algorithm 1; Lin et al., "Deep gradient compression", 2018, section 3; Karimireddy et al., "Error feedback
fixes SignSGD", 2019). With e the residual, in float32, and d the differences,

    sent + e' = round(float64(e) + d)    bit for bit, as each coordinate is either sent or kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, cast, get_args

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import DTypeLike, NDArray

from protos import tensors
from protos.tensors import ALIGNMENT, AUXILIARY, DTYPES, Array, CodecError, Parameters, Signature, TensorSpec
from protos.top_k import TopK, num_kept
from protos.wire_forms import CHUNK, BFloat16, Buffer, Int8, OutOfRange, Raw, Values, WireForm

Compression = Literal["none", "float16", "bfloat16", "int8", "top_k"]

MOST_KEPT = 0.5
"""Of the values of a tensor by top_k: more would be no smaller than the tensor."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a run's updates travel. The default is what agents of protocol 1.0 send."""

    compression: Compression = "none"
    delta: bool = False
    keep: float = 0.0
    """Of top_k alone: the fraction of each tensor's values that is sent."""

    def __post_init__(self) -> None:
        if self.compression not in get_args(Compression):
            raise CodecError(
                f"Updates can't travel as {self.compression!r}, which is not known here: update fedagent or the server."
            )
        if self.compression != "top_k":
            if self.keep:
                raise CodecError("A fraction to keep is told of top_k alone.")
        elif not (self.delta and 0 < self.keep <= MOST_KEPT):
            raise CodecError(f"top_k sends differences, and more than 0 and at most {MOST_KEPT:.0%} of them.")

    def __str__(self) -> str:
        what = "differences from the global model" if self.delta else "parameters"
        if self.compression == "top_k":
            return f"the largest {self.keep:.2g} of the {what}"
        return what if self.compression == "none" else f"{self.compression} {what}"


PLAIN = Encoding()


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
        return all(map(tensors.is_finite, self.blocks()))

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
    parameters: Mapping[str, Array],
    encoding: Encoding,
    current: Mapping[str, Array] | None = None,
    seed: int = 0,
    residual: MutableMapping[str, Array] | None = None,
) -> bytearray:
    """The bytes of `parameters`, to be read back by `decode`. They are finite (the caller has checked).

    `current` is the global model, of the same signature, and needed for differences. `seed` decides what int8 rounds up.
    `residual` is what top_k has not sent before, flat and in float32; afterwards it is what it hasn't sent now.
    Raises `CodecError` for a value that is out of the encoding's range.
    """
    if encoding == PLAIN:
        return tensors.encode(parameters)
    signature = Signature.of(parameters)
    buffer, random = bytearray(encoded_size(signature, encoding)), np.random.default_rng(seed)
    residual = {} if residual is None else residual
    for spec, form, offset in _places(signature, encoding):
        values = np.ascontiguousarray(parameters[spec.name]).reshape(-1)
        source = _differences(values, _base(spec, encoding, current))
        form.attach(buffer, offset)
        try:
            if isinstance(form, TopK):
                residual[spec.name] = _added(residual.get(spec.name), source, values.size)
                form.move_largest_from(residual[spec.name])
            else:
                form.fill(source, random)
        except OutOfRange as error:
            raise _out_of_range(spec, encoding, error.largest) from error
    return buffer


def _differences(values: NDArray[Any], base: Array | None) -> Values:
    """Of flat `values` from `base`, in float64; without one, the values."""

    def source(start: int, stop: int) -> NDArray[Any]:
        if base is None:
            return values[start:stop]
        difference: NDArray[np.float64] = values[start:stop].astype(np.float64) - base[start:stop]
        return difference

    return source


def _added(residual: Array | None, differences: Values, size: int) -> NDArray[np.float32]:
    """The residual and the differences, in float32. One of another shape is of another model, and begins anew."""
    if residual is None or residual.shape != (size,) or residual.dtype != np.float32:
        residual = np.zeros(size, np.float32)
    for start in range(0, size, CHUNK):
        stop = min(start + CHUNK, size)
        with np.errstate(over="ignore"):  # infinities are the largest, and found when they are to be sent
            residual[start:stop] = residual[start:stop].astype(np.float64) + differences(start, stop)
    return residual


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
            return Int8(size)
        if encoding.compression == "bfloat16" and dtype.itemsize > 2:
            return BFloat16(size)
        if encoding.compression == "float16":
            return Raw(size, DTYPES["float16"])
        largest = TopK(size, num_kept(size, encoding.keep))
        if encoding.compression == "top_k" and largest.nbytes < size * dtype.itemsize:
            return largest
    return Raw(size, dtype)


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


def _out_of_range(spec: TensorSpec, encoding: Encoding, largest: float) -> CodecError:
    advice = "bfloat16 or int8" if encoding.compression == "float16" else "parameters"
    return CodecError(
        f"Tensor {spec.name!r} of the update can't travel as {encoding}: it holds {largest:.3g}, which is out of "
        f"their range. Let the strategy send {advice}, or try a smaller learning rate."
    )
