"""Flower's messages with models in them: what protobuf makes of them, with fewer copies.

A model is nearly all of such a message, and protobuf copies it several times, out and in. Here an instruction is put together
in one copy, and the tensors of an answer are views of what came. All else in them, protobuf writes and reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from client_agent.flower import arrays
from client_agent.sdk import Arrays
from protos.chunks import varint
from protos.flower import transport_pb2
from protos.flower.transport_pb2 import ClientMessage, ServerMessage
from protos.wire_forms import Buffer

Work = transport_pb2.FitIns | transport_pb2.EvaluateIns

_MOST_BITS = 64


def _key(field_number: int) -> int:
    """Of a field that tells its length."""
    return field_number << 3 | 2


_ANSWERS = {
    _key(ClientMessage.GET_PARAMETERS_RES_FIELD_NUMBER): transport_pb2.GetParametersRes.PARAMETERS_FIELD_NUMBER,
    _key(ClientMessage.FIT_RES_FIELD_NUMBER): transport_pb2.FitRes.PARAMETERS_FIELD_NUMBER,
}
"""Those that bring tensors, and where."""
_TENSOR = _key(transport_pb2.Parameters.TENSORS_FIELD_NUMBER)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a Flower client says. Tensors are no part of `message`."""

    message: ClientMessage
    tensors: Sequence[Buffer] = ()


def write(instruction: ServerMessage | bytes) -> bytes:
    """Bytes are written already."""
    return instruction if isinstance(instruction, bytes) else instruction.SerializeToString()


def instruction(work: Work, parameters: Arrays) -> bytes:
    """The message that asks for `work` on `parameters`, which are no part of it yet."""
    number = {
        transport_pb2.FitIns: ServerMessage.FIT_INS_FIELD_NUMBER,
        transport_pb2.EvaluateIns: ServerMessage.EVALUATE_INS_FIELD_NUMBER,
    }[type(work)]
    tensors = [part for array in parameters for part in _field(_TENSOR, arrays.to_flower(array))]
    rest = transport_pb2.Parameters(tensor_type=arrays.TENSOR_TYPE).SerializeToString()
    model = _field(_key(work.PARAMETERS_FIELD_NUMBER), [*tensors, rest])
    return b"".join(_field(_key(number), [*model, work.SerializeToString()]))


def read(content: bytes) -> Answer:
    """Raises `DecodeError`."""
    try:
        ((key, _, body),) = _fields(memoryview(content))
        tensors, rest = _apart(body, _key(_ANSWERS[key]))
    except (KeyError, ValueError, IndexError):  # another message, or none: protobuf says
        return Answer(ClientMessage.FromString(content))
    return Answer(ClientMessage.FromString(b"".join(_field(key, rest))), tensors)


def _apart(answer: memoryview, parameters: int) -> tuple[list[memoryview], list[memoryview]]:
    """The tensors of the `parameters` in an answer, and all its other fields."""
    tensors: list[memoryview] = []
    rest: list[memoryview] = []
    for key, field, content in _fields(answer):
        if key == parameters:
            tensors += [tensor for inner, _, tensor in _fields(content) if inner == _TENSOR]
        else:
            rest.append(field)
    return tensors, rest


def _field(key: int, parts: Sequence[Buffer]) -> list[Buffer]:
    return [varint(key) + varint(sum(map(len, parts))), *parts]


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """The key of each field, the whole of it, and its content. Raises `ValueError` or `IndexError` where it is not framed so."""
    begin = 0
    while begin < len(message):
        key, at = _read_varint(message, begin)
        match key & 7:
            case 0:  # a varint
                _, end = _read_varint(message, at)
            case 1:  # 64 bits
                end = at + 8
            case 2:  # what tells its length
                length, at = _read_varint(message, at)
                end = at + length
            case 5:  # 32 bits
                end = at + 4
            case _:
                raise ValueError("a group")
        if end > len(message):
            raise ValueError("cut off")
        yield key, message[begin:end], message[at:end]
        begin = end


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at
        if shift > _MOST_BITS:
            raise ValueError("no number")
