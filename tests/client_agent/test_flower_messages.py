"""Flower's messages with models in them, put together and taken apart as protobuf does it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from client_agent.flower import messages
from protos.flower import transport_pb2
from protos.flower.transport_pb2 import ClientMessage, ServerMessage

MODELS = [
    [],
    [np.zeros((0, 3), np.float32)],
    [np.array(5.0)],
    [np.arange(300_000, dtype=np.float32), np.asfortranarray(np.ones((2, 3))), np.array([True])],
]
CONFIG = {"rate": transport_pb2.Scalar(double=0.5), "round": transport_pb2.Scalar(sint64=-1)}


def saved(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def parameters(model: list[NDArray[Any]]) -> transport_pb2.Parameters:
    return transport_pb2.Parameters(tensors=map(saved, model), tensor_type="numpy.ndarray")


@pytest.mark.parametrize("model", MODELS)
def test_an_instruction_is_what_protobuf_reads(model: list[NDArray[Any]]) -> None:
    for kind, work in (("fit_ins", transport_pb2.FitIns), ("evaluate_ins", transport_pb2.EvaluateIns)):
        read = ServerMessage.FromString(messages.instruction(work(config=CONFIG), model))
        assert read.WhichOneof("msg") == kind
        asked = getattr(read, kind)
        assert (dict(asked.config), asked.parameters.tensor_type) == (CONFIG, "numpy.ndarray")
        for tensor, array in zip(asked.parameters.tensors, model, strict=True):
            np.testing.assert_array_equal(np.load(io.BytesIO(tensor), allow_pickle=False), array)


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_of_protobuf_is_read_and_its_tensors_beside_it(model: list[NDArray[Any]]) -> None:
    status = transport_pb2.Status(code=transport_pb2.FIT_NOT_IMPLEMENTED, message="no")
    fitted = ClientMessage(fit_res=transport_pb2.FitRes(status=status, num_examples=2**40, metrics=CONFIG))
    given = ClientMessage(get_parameters_res=transport_pb2.GetParametersRes(status=status))
    for message, body in ((fitted, fitted.fit_res), (given, given.get_parameters_res)):
        without = ClientMessage.FromString(message.SerializeToString())
        body.parameters.CopyFrom(parameters(model))
        answer = messages.read(message.SerializeToString())
        assert answer.message == without
        assert [bytes(tensor) for tensor in answer.tensors] == list(map(saved, model))


@pytest.mark.parametrize(
    "message",
    [
        ClientMessage(),
        ClientMessage(evaluate_res=transport_pb2.EvaluateRes(loss=0.5, num_examples=3, metrics=CONFIG)),
        ClientMessage(disconnect_res=transport_pb2.DisconnectRes(reason=1)),
        ClientMessage(get_properties_res=transport_pb2.GetPropertiesRes(properties=CONFIG)),
    ],
)
def test_any_other_answer_is_read_by_protobuf(message: ClientMessage) -> None:
    assert messages.read(message.SerializeToString()) == messages.Answer(message)


def test_what_another_protobuf_may_write_is_read_too() -> None:
    """Fields in any order, repeated, unknown, and of all kinds."""
    examples = transport_pb2.FitRes(num_examples=7).SerializeToString()
    two = (transport_pb2.FitRes(parameters=transport_pb2.Parameters(tensors=[name])) for name in (b"a", b"b"))
    unknown = b"\xf8\x07\x01" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)
    first, second = (part.SerializeToString() for part in two)
    body = first + examples + unknown + second
    content = ClientMessage(fit_res=transport_pb2.FitRes.FromString(body)).SerializeToString()
    framed = content[:1] + bytes([len(body)]) + body
    answer = messages.read(framed)
    assert [bytes(tensor) for tensor in answer.tensors] == [b"a", b"b"]
    assert answer.message.fit_res.num_examples == 7


@pytest.mark.parametrize("content", [b"\x22\x05ab", b"\x22", b"\xff" * 20, b"\x22\x02\x12\x05", b"\x22\x02\x12\x81"])
def test_what_is_no_message_is_refused_by_protobuf(content: bytes) -> None:
    with pytest.raises(DecodeError):
        messages.read(content)
