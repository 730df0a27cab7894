"""A safetensors file in parts: its header, and the tensors' own memory. The library's `save` takes three times the model for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from protos.tensors import DTYPES, Array

_ALIGNMENT = 8
_DTYPES = {
    "uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32", "int32": "I32", "float16": "F16", "uint16": "U16",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
"""The file's name of each, in the order in which the library writes them; those of one dtype are in the order of their names."""
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES)}


def parts_of(tensors: Mapping[str, Array]) -> Sequence[memoryview]:
    """Together they are, bit for bit, what the library makes of `tensors`."""
    ordered = sorted(tensors, key=lambda name: (_RANKS[tensors[name].dtype.name], name.encode()))
    header, contents, offset = {}, [], 0
    for name in ordered:
        array = tensors[name]
        end = offset + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        contents.append(_bytes_of(array))
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return [memoryview(len(text).to_bytes(8, "little") + text), *contents]


def _bytes_of(array: Array) -> memoryview:
    little = np.asarray(array, DTYPES[array.dtype.name], order="C")
    return little.reshape(-1).view(np.uint8).data
