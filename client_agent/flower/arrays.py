"""Arrays as Flower's stream carries them: each a file in NumPy's format .npy, without pickle."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from client_agent.sdk import Arrays
from protos.tensors import DTYPES, CodecError, Signature
from protos.wire_forms import Buffer

TENSOR_TYPE = "numpy.ndarray"

_MOST_HEADER_BYTES = 16 * 1024
"""NumPy reads no longer one."""
_READ_HEADER = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def to_flower(array: NDArray[Any]) -> list[Buffer]:
    """The parts of its file: header and values, which aren't copied."""
    array = np.asarray(array, order="C")
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
    return [header.getvalue(), array.reshape(-1).view(np.uint8).data]


def from_flower(tensors: Sequence[Buffer]) -> Arrays:
    """Read-only views of what came. Raises `CodecError` for what is no array of numbers."""
    return [_load(content) for content in tensors]


def as_declared(arrays: Arrays, signature: Signature) -> Arrays:
    """With the signature's dtypes, where the values are of the same kind: Flower never asked its clients for one dtype.

    Whatever else doesn't fit stays as it is, for the check of the whole to name.
    """
    if len(arrays) != len(signature.tensors):
        return arrays
    with np.errstate(over="ignore"):  # what becomes infinite is refused as such
        return [_cast(array, DTYPES[spec.dtype]) for array, spec in zip(arrays, signature.tensors, strict=True)]


def _cast(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return array.astype(dtype, copy=False) if np.can_cast(array.dtype, dtype, "same_kind") else array


def _load(content: Buffer) -> NDArray[Any]:
    file = io.BytesIO(content[:_MOST_HEADER_BYTES])
    try:
        shape, is_fortran, dtype = _READ_HEADER[npy.read_magic(file)](file)
    except (ValueError, KeyError) as error:
        raise CodecError(f"A tensor of the Flower client is no .npy file that can be read here: {error}") from error
    if dtype.hasobject:
        raise CodecError("A tensor of the Flower client holds Python objects.")
    offset, count = file.tell(), math.prod(shape)
    if min(shape, default=0) < 0 or len(content) - offset != count * dtype.itemsize:
        raise CodecError(
            f"A tensor of the Flower client has {len(content) - offset:,} bytes, not those of its shape {shape}."
        )
    return np.frombuffer(content, dtype, count, offset).reshape(shape, order="F" if is_fortran else "C")
