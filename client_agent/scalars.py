"""Metrics and properties as apps write them, made ready to be sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from protos.convert import scalars_to_proto
from protos.fedui.v1 import tensor_pb2

ProtoScalars = Mapping[str, tensor_pb2.Scalar]


def to_proto(values: Mapping[str, Any]) -> ProtoScalars:
    """NumPy's scalars count as Python's. Raises `CodecError` for a value that can't be sent."""
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return scalars_to_proto(plain)
