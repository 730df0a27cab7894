"""A global model in the form in which a round sends it: encoded and hashed once, shared by all downloads."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protos.convert import signature_to_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters, Signature, encode


@dataclass(frozen=True, slots=True)
class GlobalModel:
    parameters: Parameters
    encoded: bytearray
    ref: task_pb2.ModelRef

    @classmethod
    def of(cls, parameters: Parameters) -> GlobalModel:
        encoded = encode(parameters)
        ref = task_pb2.ModelRef(
            sha256=hashlib.sha256(encoded).hexdigest(),
            size=len(encoded),
            signature=signature_to_proto(Signature.of(parameters)),
        )
        return cls(parameters, encoded, ref)
