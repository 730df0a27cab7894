"""How far the global model went between two rounds, by tensor. Files are read in blocks: memory doesn't grow with the model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from django.core.cache import cache
from django.http import Http404
from numpy.typing import NDArray

from fedui.errors import DomainError, ErrorCode
from fedui.runs.models import ModelVersion
from fedui.runs.retention import ModelGone
from fedui.runs.store import model_files

BLOCK = 1 << 18
"""Numbers of each file that are in memory at a time."""
MAX_BYTES = 4 * 1024**3
MAX_HEADER = 16 * 1024**2
KEPT_SECONDS = 7 * 24 * 3600
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


class DiffRefused(DomainError):
    """These two models are not compared."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(slots=True)
class Sums:
    """Of all numbers of one tensor, or of several."""

    size: int = 0
    before: float = 0.0
    after: float = 0.0
    product: float = 0.0
    step: float = 0.0
    largest: float = 0.0

    def add(self, before: NDArray[Any], after: NDArray[Any]) -> None:
        a, b = before.astype(np.float64), after.astype(np.float64)
        step = b - a
        self.size += a.size
        self.before += float(a @ a)
        self.after += float(b @ b)
        self.product += float(a @ b)
        self.step += float(step @ step)
        self.largest = max(self.largest, float(np.abs(step).max(initial=0.0)))

    def merge(self, other: Sums) -> None:
        self.size += other.size
        self.before += other.before
        self.after += other.after
        self.product += other.product
        self.step += other.step
        self.largest = max(self.largest, other.largest)

    def payload(self) -> dict[str, Any]:
        """`change` is relative to the norm before; it and the cosine are None where they have no meaning."""
        lengths = math.sqrt(self.before) * math.sqrt(self.after)
        return {
            "size": self.size,
            "norm": math.sqrt(self.step),
            "change": math.sqrt(self.step / self.before) if self.before else None,
            "cosine": max(-1.0, min(1.0, self.product / lengths)) if lengths else None,
            "largest": self.largest,
        }


@dataclass(slots=True)
class Layer:
    total: Sums = field(default_factory=Sums)
    tensors: dict[str, Sums] = field(default_factory=dict)


def diff_payload(before: ModelVersion, after: ModelVersion) -> dict[str, Any]:
    """Raises `DiffRefused`, `ModelGone`. What was computed once is kept: models never change."""
    for model in (before, after):
        if model.removed_at:
            raise ModelGone(model)
        if model.size > MAX_BYTES:
            raise DiffRefused(f"{model} has {model.size:,} bytes.", hint="Download both and compare them there.")
    key = f"model-diff:1:{before.sha256}:{after.sha256}"
    layers = cache.get(key)
    if layers is None:
        layers = _compared(before, after)
        cache.set(key, layers, KEPT_SECONDS)
    return {"before": before.round_number, "after": after.round_number, **layers}


def _compared(before: ModelVersion, after: ModelVersion) -> dict[str, Any]:
    layers: dict[str, Layer] = {}
    total = Sums()
    try:
        with model_files().open(before.key) as first, model_files().open(after.key) as second:
            for name, sums in _tensors(first, second):
                layer = layers.setdefault(layer_of(name), Layer())
                layer.tensors[name] = sums
                layer.total.merge(sums)
                total.merge(sums)
    except FileNotFoundError as error:
        raise Http404("A model is missing from the model store.") from error
    return {
        "total": total.payload(),
        "layers": [
            {
                "name": name,
                **layer.total.payload(),
                "tensors": [{"name": t, **s.payload()} for t, s in layer.tensors.items()],
            }
            for name, layer in layers.items()
        ],
    }


def layer_of(tensor: str) -> str:
    """ "encoder.0.weight" belongs to "encoder.0"; a name without a dot is its own layer."""
    return tensor.rpartition(".")[0] or tensor


def _tensors(first: BinaryIO, second: BinaryIO) -> Iterator[tuple[str, Sums]]:
    before, after = _header(first), _header(second)
    for name, (dtype, start, end) in before.items():
        other = after.get(name)
        if other is None or other[0] != dtype or other[2] - other[1] != end - start:
            raise DiffRefused(
                f"Tensor {name} is of another size or type in the later model.",
                hint="Models of open size, as trees are, have no difference by tensor.",
            )
        sums = Sums()
        for a, b in zip(_blocks(first, dtype, start, end), _blocks(second, dtype, *other[1:]), strict=True):
            sums.add(a, b)
        yield name, sums


def _header(file: BinaryIO) -> dict[str, tuple[str, int, int]]:
    """By tensor its type, and where in the file it begins and ends, in the order of the file."""
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise DiffRefused("The header of a model is too long.", hint="The file isn't one that the server wrote.")
    told = json.loads(file.read(length))
    told.pop("__metadata__", None)
    begin = 8 + length
    found = {n: (t["dtype"], begin + t["data_offsets"][0], begin + t["data_offsets"][1]) for n, t in told.items()}
    return dict(sorted(found.items(), key=lambda item: item[1][1]))


def _blocks(file: BinaryIO, dtype: str, start: int, end: int) -> Iterator[NDArray[Any]]:
    if dtype not in DTYPES:
        raise DiffRefused(f"Tensors of type {dtype} can't be compared.", hint="Download both models.")
    kind = np.dtype(DTYPES[dtype])
    while start < end:
        file.seek(start)
        raw = file.read(min(end - start, BLOCK * kind.itemsize))
        if not raw:
            raise DiffRefused("The file of a model ends too early.", hint="Restore it from a backup.")
        start += len(raw)
        values = np.frombuffer(raw, kind)
        yield _widened(values) if dtype == "BF16" else values


def _widened(halves: NDArray[Any]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
