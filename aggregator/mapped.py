"""Updates that lie in files, read block by block: so little of a file is mapped into memory at a time, however large the model is."""

from __future__ import annotations

import mmap
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from protos.encodings import EncodedTensor
from protos.tensors import Array, Parameters
from protos.wire_forms import Raw

WINDOW_BYTES = 4 * 1024**2
_DROP = getattr(mmap, "MADV_DONTNEED", None)


class _Window:
    """What of a mapping is in memory, which counts as the process's. Dropped pages are read again where somebody looks at them."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._mapping = mapping
        self._seen = 0

    def move(self, nbytes: int) -> None:
        self._seen += nbytes
        if self._seen > WINDOW_BYTES and _DROP is not None:
            self._mapping.madvise(_DROP)
            self._seen = nbytes


class _Mapped(Raw):
    def __init__(self, values: NDArray[Any], window: _Window) -> None:
        super().__init__(values.size, values.dtype)
        self._values, self._window = values, window

    def read(self, start: int, stop: int) -> NDArray[Any]:
        self._window.move((stop - start) * self._values.itemsize)
        return super().read(start, stop)


def in_blocks(parameters: Parameters, buffer: memoryview) -> Parameters:
    """`parameters`, which are views of `buffer`; if that is a file's, the floating ones are read as tensors that came encoded are."""
    if not isinstance(buffer.obj, mmap.mmap):
        return parameters
    window = _Window(buffer.obj)
    return {name: _in_blocks(array, window) for name, array in parameters.items()}


def _in_blocks(array: Array, window: _Window) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        return array
    form = _Mapped(array.reshape(-1), window)
    return cast(Array, EncodedTensor(form, array.shape, array.dtype, None))
