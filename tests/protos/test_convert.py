"""Scalars and signatures between messages and Python."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import limits
from protos.convert import (
    ScalarValue,
    scalars_from_proto,
    scalars_to_proto,
    signature_from_proto,
    signature_to_proto,
)
from protos.fedui.v1 import tensor_pb2
from protos.tensors import CodecError, Signature, TensorSpec

characters = st.characters(exclude_characters=limits.NUL, codec="utf-8")
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(characters, max_size=100),
    st.binary(max_size=100),
)


@given(st.dictionaries(st.text(characters, min_size=1, max_size=50), scalars, max_size=10))
def test_scalars_keep_value_and_type(values: dict[str, ScalarValue]) -> None:
    message = tensor_pb2.Scalar()
    assert message.WhichOneof("value") is None
    back = scalars_from_proto(scalars_to_proto(values))
    assert back == values
    assert {name: type(value) for name, value in back.items()} == {name: type(value) for name, value in values.items()}


@pytest.mark.parametrize(
    "value", [2**63, "x" * (limits.MAX_SCALAR_BYTES + 1), b"x" * (limits.MAX_SCALAR_BYTES + 1), "x\0", "\udcff", None]
)
def test_what_cannot_be_sent_is_refused_by_name(value: ScalarValue) -> None:
    with pytest.raises(CodecError, match="'m' is a"):
        scalars_to_proto({"m": value})


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(CodecError, match="surrogate"):
        scalars_to_proto({"\udcff": 1})


@pytest.mark.parametrize(("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_number_that_is_none_arrives_as_a_text(value: float, text: str) -> None:
    assert scalars_from_proto(scalars_to_proto({"auc": value})) == {"auc": text}


def test_a_map_without_end_is_refused() -> None:
    many = {str(i): tensor_pb2.Scalar(bool=True) for i in range(limits.MAX_SCALARS + 1)}
    with pytest.raises(CodecError, match="at most"):
        scalars_from_proto(many)


def test_a_scalar_without_a_value_is_refused() -> None:
    with pytest.raises(CodecError, match="no value"):
        scalars_from_proto({"m": tensor_pb2.Scalar()})


@pytest.mark.parametrize(
    "values", [{"m\0": tensor_pb2.Scalar(bool=True)}, {"m": tensor_pb2.Scalar(string="x\0")}], ids=["name", "text"]
)
def test_what_no_database_keeps_is_refused(values: dict[str, tensor_pb2.Scalar]) -> None:
    with pytest.raises(CodecError, match="NUL"):
        scalars_from_proto(values)


def test_a_tensors_name_without_nul_alone_is_one() -> None:
    tensor = tensor_pb2.TensorSpec(name="w\0", dtype="float32")
    with pytest.raises(CodecError, match="NUL"):
        signature_from_proto(tensor_pb2.ModelSignature(tensors=[tensor]))


def test_signatures_come_back() -> None:
    signature = Signature((TensorSpec("w", "float16", (2, 3)), TensorSpec("n", "int64", ())))
    assert signature_from_proto(signature_to_proto(signature)) == signature
