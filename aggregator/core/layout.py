"""A model as one vector of its floating tensors, for rules that see an update as a point in space."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.tensors import Array, Parameters, Signature, TensorSpec

BLOCK = 262_144
"""Values copied at a time."""


@dataclass(frozen=True, slots=True)
class FloatLayout:
    """Where each floating tensor lies in the vector. Integer and bool tensors have no place in it: they are averaged apart."""

    floats: tuple[TensorSpec, ...]
    others: Signature
    length: int
    dtype: np.dtype[Any]
    """float32, or float64 if a tensor of the model is."""

    @classmethod
    def of(cls, signature: Signature) -> FloatLayout:
        floats = tuple(t for t in signature.tensors if t.dtype.startswith("float"))
        others = Signature(tuple(t for t in signature.tensors if not t.dtype.startswith("float")))
        wide = any(t.dtype == "float64" for t in floats)
        return cls(floats, others, sum(math.prod(t.shape) for t in floats), np.dtype("f8" if wide else "f4"))

    def flatten(self, parameters: Mapping[str, Array]) -> NDArray[Any]:
        """Shape (length,)."""
        vector = np.empty(self.length, self.dtype)
        start = 0
        for spec in self.floats:
            flat, size = parameters[spec.name].reshape(-1), math.prod(spec.shape)
            for first in range(0, size, BLOCK):  # of a tensor that is decoded where it is read, no more at a time
                last = min(first + BLOCK, size)
                vector[start + first : start + last] = flat[first:last]
            start += size
        return vector

    def unflatten(self, vector: NDArray[Any]) -> Parameters:
        """The inverse, rounded to each tensor's dtype."""
        parameters: Parameters = {}
        start = 0
        for spec in self.floats:
            end = start + math.prod(spec.shape)
            parameters[spec.name] = vector[start:end].astype(spec.dtype).reshape(spec.shape)
            start = end
        return parameters
