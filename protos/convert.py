"""Between messages and the values that Python code works with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast, get_args

from protos import limits
from protos.encodings import PLAIN, Compression, Encoding
from protos.fedui.v1 import tensor_pb2
from protos.packing import Packing
from protos.tensors import CodecError, Signature, TensorSpec

ScalarValue = bool | int | float | str | bytes
Scalars = dict[str, ScalarValue]


def signature_to_proto(signature: Signature) -> tensor_pb2.ModelSignature:
    return tensor_pb2.ModelSignature(
        tensors=[tensor_pb2.TensorSpec(name=t.name, dtype=t.dtype, shape=t.shape) for t in signature.tensors]
    )


def signature_from_proto(message: tensor_pb2.ModelSignature) -> Signature:
    """Raises `CodecError` for a signature that breaks a limit, before much is made of it."""
    if len(message.tensors) > limits.MAX_TENSORS:
        raise CodecError(f"A model has at most {limits.MAX_TENSORS} tensors, not {len(message.tensors)}.")
    return Signature(tuple(_spec_from_proto(t) for t in message.tensors))


def _spec_from_proto(message: tensor_pb2.TensorSpec) -> TensorSpec:
    shape = tuple(message.shape[: limits.MAX_DIMENSIONS + 1])  # one too many is enough
    return TensorSpec(message.name, message.dtype, shape)


def encoding_to_proto(encoding: Encoding, packing: Packing = "none") -> tensor_pb2.UpdateEncoding | None:
    """None for the plain one, which peers of protocol 1.0 understand."""
    if encoding == PLAIN and packing == "none":
        return None
    packed = "" if packing == "none" else packing
    return tensor_pb2.UpdateEncoding(
        compression=encoding.compression, delta=encoding.delta, keep=encoding.keep, packing=packed
    )


def encoding_from_proto(message: tensor_pb2.UpdateEncoding) -> Encoding:
    """Raises `CodecError` for one that isn't known here."""
    return Encoding(cast(Compression, message.compression or "none"), message.delta, message.keep)  # checks the name


def packing_from_proto(name: str) -> Packing | None:
    """None of one that isn't known here."""
    return next((packing for packing in get_args(Packing) if packing == (name or "none")), None)


def scalars_to_proto(values: Mapping[str, ScalarValue]) -> dict[str, tensor_pb2.Scalar]:
    """Raises `CodecError` for a value of another type or over the limits."""
    return {_checked_name(name): _scalar_to_proto(name, value) for name, value in values.items()}


def scalars_from_proto(messages: Mapping[str, tensor_pb2.Scalar]) -> Scalars:
    """Raises `CodecError` for a map over the limits or an entry without a value.

    A number that is NaN or infinite comes as the text "nan", "inf" or "-inf": it can be shown, but neither counted nor written as JSON.
    """
    if len(messages) > limits.MAX_SCALARS:
        raise CodecError(f"{len(messages)} named values; at most {limits.MAX_SCALARS} are allowed.")
    return {_checked_name(name): _scalar_from_proto(name, message) for name, message in messages.items()}


def _checked_name(name: str) -> str:
    if not name or len(name) > limits.MAX_NAME_LENGTH:
        raise CodecError(f"A value's name has 1 to {limits.MAX_NAME_LENGTH} characters.")
    if limits.NUL in name or not _is_unicode(name):
        raise CodecError(f"The name of the value {name!r} holds the character NUL, or half of a surrogate pair.")
    return name


def _scalar_to_proto(name: str, value: ScalarValue) -> tensor_pb2.Scalar:
    match value:
        case bool():
            return tensor_pb2.Scalar(bool=value)
        case int() if -(2**63) <= value < 2**63:
            return tensor_pb2.Scalar(sint64=value)
        case float():
            return tensor_pb2.Scalar(double=value)
        case str() if _can_travel(value):
            return tensor_pb2.Scalar(string=value)
        case bytes() if len(value) <= limits.MAX_SCALAR_BYTES:
            return tensor_pb2.Scalar(bytes=value)
    raise CodecError(
        f"{name!r} is a {type(value).__name__} that can't be sent: use bool, int (64 bits), float, or str and bytes "
        f"of at most {limits.MAX_SCALAR_BYTES} bytes, str of Unicode without NUL."
    )


def _scalar_from_proto(name: str, message: tensor_pb2.Scalar) -> ScalarValue:
    match message.WhichOneof("value"):
        case "double":
            return message.double if math.isfinite(message.double) else str(message.double)
        case "sint64":
            return message.sint64
        case "bool":
            return message.bool
        case "string" if _can_travel(message.string):
            return message.string
        case "bytes" if len(message.bytes) <= limits.MAX_SCALAR_BYTES:
            return message.bytes
    raise CodecError(f"{name!r} has no value, or one over {limits.MAX_SCALAR_BYTES} bytes, or a text with NUL.")


def _can_travel(text: str) -> bool:
    return _is_unicode(text) and len(text.encode()) <= limits.MAX_SCALAR_BYTES and limits.NUL not in text


def _is_unicode(text: str) -> bool:
    """Not so where half of a surrogate pair stands for a byte, as Python writes the name of a file that it can't read."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
