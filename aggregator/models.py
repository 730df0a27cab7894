"""Global models, and the form in which a round sends them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from protos.convert import signature_to_proto
from protos.fedui.v1 import task_pb2
from protos.packing import Packing, pack
from protos.tensors import Parameters, Signature, decode, encode


@dataclass(frozen=True, slots=True)
class Payload:
    """Tensors, encoded and hashed once, shared by all downloads."""

    encoded: bytearray
    ref: task_pb2.ModelRef
    packed: bytearray | None = None
    """The same, smaller, for agents that ask for it; None where it is not to be, or would hardly be smaller."""

    @classmethod
    def of(cls, parameters: Parameters, packing: Packing = "none") -> Payload:
        encoded = encode(parameters)
        packed = pack(encoded) if packing != "none" else None
        ref = task_pb2.ModelRef(
            sha256=hashlib.sha256(encoded).hexdigest(),
            size=len(encoded),
            signature=signature_to_proto(Signature.of(parameters)),
            packed=None if packed is None else _packed_model(packing, packed),
        )
        return cls(encoded, ref, packed)


def _packed_model(packing: Packing, packed: bytearray) -> task_pb2.PackedModel:
    return task_pb2.PackedModel(packing=packing, sha256=hashlib.sha256(packed).hexdigest(), size=len(packed))


@dataclass(frozen=True, slots=True)
class GlobalModel:
    """The parameters after a round, those included that stay at the clients; and what the clients are sent of them."""

    parameters: Parameters
    shared: Payload

    @classmethod
    def of(cls, parameters: Parameters, shared: Parameters, packing: Packing = "none") -> GlobalModel:
        """What is shared is there once: the arrays become views of the bytes that are sent."""
        payload = Payload.of(shared, packing)
        sent = decode(payload.encoded, Signature.of(shared))
        return cls({name: sent.get(name, array) for name, array in parameters.items()}, payload)


NO_MODEL = GlobalModel.of({}, {})
