"""The tensor codec: what goes in comes out, and what doesn't fit is refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from protos import limits
from protos.tensors import DTYPES, OPEN, CodecError, Parameters, Signature, TensorSpec, decode, encode, first_non_finite

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: npst.arrays(np.dtype(name), npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
names = st.text(st.characters(exclude_characters=limits.NUL, codec="utf-8"), min_size=1, max_size=20)
models = st.dictionaries(names, arrays, max_size=6)


@given(models)
def test_a_model_survives_the_wire_bit_for_bit(model: Parameters) -> None:
    decoded = decode(encode(model), Signature.of(model))
    assert list(decoded) == list(model)
    for name, array in model.items():
        assert decoded[name].dtype == array.dtype
        assert decoded[name].shape == array.shape
        assert decoded[name].tobytes() == array.tobytes()


def test_decoding_copies_nothing_and_protects_the_buffer() -> None:
    buffer = encode({"w": np.ones(4, np.float32)})
    decoded = decode(buffer, Signature((TensorSpec("w", "float32", (4,)),)))
    buffer[:4] = np.float32(7).tobytes()
    assert decoded["w"][0] == 7
    with pytest.raises(ValueError, match="read-only"):
        decoded["w"][0] = 1


@given(models, st.integers(min_value=-64, max_value=64).filter(bool))
def test_a_buffer_of_another_length_is_refused(model: Parameters, difference: int) -> None:
    buffer = bytes(encode(model))
    cut = buffer[:difference] if difference < 0 else buffer + b"\0" * difference
    if len(cut) != len(buffer):
        with pytest.raises(CodecError, match="its signature says"):
            decode(cut, Signature.of(model))


def test_big_endian_and_strided_arrays_are_sent_as_little_endian_and_contiguous() -> None:
    array = np.arange(12, dtype=">i4").reshape(3, 4).T
    decoded = decode(encode({"a": array}), Signature((TensorSpec("a", "int32", (4, 3)),)))
    np.testing.assert_array_equal(decoded["a"], array)


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "message"),
    [
        ("", "float32", (1,), "1 to 255 characters"),
        ("w", "object", (1,), "supported are"),
        ("w", "complex64", (1,), "supported are"),
        ("w", "float32", (-1,), "only uint8 may be open"),
        ("w", "uint8", (-2,), "negative dimension"),
        ("w", "uint8", (-1, 4), "negative dimension"),
        ("w", "float32", (1,) * 9, "dimensions"),
    ],
)
def test_a_spec_outside_the_limits_is_refused(name: str, dtype: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(CodecError, match=message):
        TensorSpec(name, dtype, shape)


def test_a_signature_larger_than_any_memory_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(CodecError, match="the limit is"):
        Signature((TensorSpec("w", "float64", (2**40, 2**20)),))


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(CodecError, match="same name"):
        Signature((TensorSpec("w", "float32", ()), TensorSpec("w", "float32", ())))


def test_differences_are_named() -> None:
    mine = Signature((TensorSpec("a", "float32", (2,)), TensorSpec("b", "int8", ())))
    assert mine.difference(mine) == ""
    assert "'b' is missing" in mine.difference(Signature(mine.tensors[:1]))
    assert "'c' is not part" in mine.difference(Signature((*mine.tensors, TensorSpec("c", "int8", ()))))
    assert "dtype float64" in mine.difference(Signature((TensorSpec("a", "float64", (2,)), mine.tensors[1])))
    assert "shape (3,)" in mine.difference(Signature((TensorSpec("a", "float32", (3,)), mine.tensors[1])))
    assert "another order" in mine.difference(Signature(mine.tensors[::-1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_value_that_is_not_finite_is_found_in_the_last_place(bad: float, dtype: str) -> None:
    array = np.zeros(1000, dtype)
    assert first_non_finite({"w": array}) is None
    array[-1] = bad
    assert first_non_finite({"ok": np.zeros(3), "w": array}) == "w"


def test_a_bool_that_is_neither_true_nor_false_is_found() -> None:
    signature = Signature((TensorSpec("mask", "bool", (2,)),))
    buffer = bytearray(signature.size)
    buffer[1] = 7
    assert first_non_finite(decode(buffer, signature)) == "mask"


OPEN_SIGNATURE = Signature((TensorSpec("ensemble", "uint8", OPEN), TensorSpec("w", "float32", (2,))))


@given(st.integers(0, 200))
def test_an_open_length_fits_any_and_the_model_is_read_by_its_own(length: int) -> None:
    model: Parameters = {"ensemble": np.arange(length, dtype=np.uint8), "w": np.ones(2, np.float32)}
    own = Signature.of(model)
    assert OPEN_SIGNATURE.misfit(own) == ""
    assert OPEN_SIGNATURE.size >= own.size
    np.testing.assert_array_equal(decode(encode(model), own)["ensemble"], model["ensemble"])


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        ("uint8", (limits.MAX_OPEN_BYTES + 1,), "the limit is 67,108,864"),
        ("int8", (5,), "has dtype int8, not uint8"),
        ("uint8", (5, 1), "a number of bytes is expected"),
        ("uint8", (), "a number of bytes is expected"),
        ("uint8", OPEN, "a number of bytes is expected"),
    ],
)
def test_what_an_open_length_does_not_fit_is_named(dtype: str, shape: tuple[int, ...], message: str) -> None:
    concrete = Signature((TensorSpec("ensemble", dtype, shape), OPEN_SIGNATURE.tensors[1]))
    assert message in OPEN_SIGNATURE.misfit(concrete)


def test_declarations_differ_where_one_is_open_and_the_other_is_not() -> None:
    fixed = Signature((TensorSpec("ensemble", "uint8", (5,)), OPEN_SIGNATURE.tensors[1]))
    assert "shape (5,), not (-1,)" in OPEN_SIGNATURE.difference(fixed)
    assert "shape (-1,), not (5,)" in fixed.misfit(OPEN_SIGNATURE)
    assert OPEN_SIGNATURE.difference(Signature.from_json(OPEN_SIGNATURE.to_json())) == ""


def test_nothing_is_decoded_by_a_declaration() -> None:
    with pytest.raises(CodecError, match="leaves a length open"):
        decode(bytes(OPEN_SIGNATURE.size), OPEN_SIGNATURE)


def test_what_is_not_finite_is_found_anywhere_without_a_copy_of_the_model() -> None:
    large = np.zeros((4, 2**18 + 3), np.float32)
    tracemalloc.start()
    assert first_non_finite({"w": large}) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < large.size / 2
    large[-1, -1] = np.nan
    assert first_non_finite({"w": large}) == "w"
