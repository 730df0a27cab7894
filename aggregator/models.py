"""Global models, and the form in which a round sends them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protos.convert import signature_to_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters, Signature, decode, encode


@dataclass(frozen=True, slots=True)
class Payload:
    """Tensors, encoded and hashed once, shared by all downloads."""

    encoded: bytearray
    ref: task_pb2.ModelRef

    @classmethod
    def of(cls, parameters: Parameters) -> Payload:
        encoded = encode(parameters)
        ref = task_pb2.ModelRef(
            sha256=hashlib.sha256(encoded).hexdigest(),
            size=len(encoded),
            signature=signature_to_proto(Signature.of(parameters)),
        )
        return cls(encoded, ref)


@dataclass(frozen=True, slots=True)
class GlobalModel:
    """The parameters after a round, those included that stay at the clients; and what the clients are sent of them."""

    parameters: Parameters
    shared: Payload

    @classmethod
    def of(cls, parameters: Parameters, shared: Parameters) -> GlobalModel:
        """What is shared is there once: the arrays become views of the bytes that are sent."""
        payload = Payload.of(shared)
        sent = decode(payload.encoded, Signature.of(shared))
        return cls({name: sent.get(name, array) for name, array in parameters.items()}, payload)
