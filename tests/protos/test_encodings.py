"""Encodings of updates: how far what comes out may be from what went in, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from protos import tensors
from protos.encodings import (
    PLAIN,
    Compression,
    EncodedTensor,
    Encoding,
    decode,
    encode,
    encoded_size,
    first_non_finite,
)
from protos.tensors import CodecError, Parameters, Signature
from protos.wire_forms import CHUNK, SCALE_BLOCK

COMPRESSIONS: tuple[Compression, ...] = ("none", "float16", "bfloat16", "int8")
encodings = st.builds(Encoding, st.sampled_from(COMPRESSIONS), st.booleans())
shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20)
Float = np.float32


def floats(dtype: type[np.floating[Any]], largest: float) -> st.SearchStrategy[NDArray[Any]]:
    largest = float(dtype(largest))
    return npst.arrays(dtype, shapes, elements=st.floats(-largest, largest, width=np.dtype(dtype).itemsize * 8))  # type: ignore[arg-type]  # a width of 16, 32 or 64


def through(model: Parameters, encoding: Encoding, current: Parameters | None = None, seed: int = 0) -> Parameters:
    return decode(encode(model, encoding, current, seed), Signature.of(model), encoding, current)


def whole(tensor: object) -> NDArray[Any]:
    return np.asarray(tensor)


@given(floats(Float, 1e4), encodings, st.integers(0, 2**64 - 1))
def test_the_size_is_known_beforehand_and_never_more_than_the_models(
    array: NDArray[Any], encoding: Encoding, seed: int
) -> None:
    model: Parameters = {"w": array, "n": np.array(7), "mask": np.ones(5, bool), "half": array.astype("f2")}
    content = encode(model, encoding, model, seed)
    assert len(content) == encoded_size(Signature.of(model), encoding) <= Signature.of(model).size
    decoded = decode(content, Signature.of(model), encoding, model)
    assert list(decoded) == list(model)
    assert all(decoded[k].shape == model[k].shape and decoded[k].dtype == model[k].dtype for k in model)
    assert decoded["n"] == 7
    assert decoded["mask"].all()
    assert first_non_finite(decoded) is None


@given(floats(Float, 6e4))
def test_float16_rounds_to_nearest_even(array: NDArray[Any]) -> None:
    decoded = whole(through({"w": array}, Encoding("float16"))["w"])
    np.testing.assert_array_equal(decoded, array.astype("f2").astype("f4"))


@given(floats(Float, 1e38))
def test_bfloat16_is_off_by_half_of_its_last_place(array: NDArray[Any]) -> None:
    decoded = whole(through({"w": array}, Encoding("bfloat16"))["w"]).astype("f8")
    assert (np.abs(decoded - array) <= np.maximum(np.abs(array.astype("f8")) * 2**-8, 2.0**-134)).all()
    assert not (decoded.astype("f4").view("u4") & 0xFFFF).any()


def test_bfloat16_rounds_ties_to_even() -> None:
    array = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8), 1 + 2**-8 + 2**-20], "f4")
    decoded = whole(through({"w": array}, Encoding("bfloat16"))["w"])
    assert decoded.tolist() == [1, 1 + 2**-6, -1, 1 + 2**-7]


@given(floats(Float, 1e38), st.integers(0, 2**64 - 1))
def test_int8_is_off_by_less_than_a_scale_and_keeps_zero(array: NDArray[Any], seed: int) -> None:
    decoded = whole(through({"w": array}, Encoding("int8"), seed=seed)["w"]).astype("f8").reshape(-1)
    flat = array.astype("f8").reshape(-1)
    for start in range(0, flat.size, SCALE_BLOCK):
        block, back = flat[start : start + SCALE_BLOCK], decoded[start : start + SCALE_BLOCK]
        scale = np.nextafter(Float(np.abs(block).max() / 127), Float(np.inf)).astype("f8")
        assert (np.abs(block - back) <= scale * (1 + 2**-23)).all()
        assert not back[block == 0].any()


def test_int8_is_unbiased_and_decided_by_the_seed() -> None:
    array = np.random.default_rng(1).standard_normal(3 * SCALE_BLOCK + 5).astype("f4")
    model = {"w": array}
    each = np.array([whole(through(model, Encoding("int8"), seed=k)["w"]) for k in range(400)], "f8")
    scale = np.abs(array).max() / 127
    # A rounding error has a variance of at most scale²/4: the mean of 400 is within 6 σ.
    assert np.abs(each.mean(axis=0) - array).max() < 6 * scale / 2 / np.sqrt(400)
    assert encode(model, Encoding("int8"), seed=3) == encode(model, Encoding("int8"), seed=3)
    assert encode(model, Encoding("int8"), seed=3) != encode(model, Encoding("int8"), seed=4)


def held(content: bytes, size: int, dtype: str, compression: Compression) -> NDArray[Any]:
    """What the wire form of a single tensor holds, read in the plainest way."""
    if compression == "int8":
        scales = np.frombuffer(content, "<f4", -(-size // SCALE_BLOCK))
        codes = np.frombuffer(content, "i1", size, scales.nbytes)
        return np.array([float(scales[k // SCALE_BLOCK]) * int(code) for k, code in enumerate(codes)])
    if compression == "bfloat16" and dtype != "f2":
        halves = np.frombuffer(content, "<u2", size)
        return np.stack([np.zeros(size, "<u2"), halves], axis=1).reshape(-1).view("<f4").astype("f8")
    return np.frombuffer(content, "<f2" if compression == "float16" else f"<{dtype}", size).astype("f8")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["f2", "f4", "f8"]), st.sampled_from(COMPRESSIONS), st.integers(0, 2**32))
def test_a_difference_is_added_by_the_law_whatever_part_is_read(
    dtype: str, compression: Compression, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.choice([1, 7, SCALE_BLOCK, 3 * SCALE_BLOCK + 1, CHUNK + 9]))
    current = {"w": rng.standard_normal(size).astype(dtype)}
    model = {"w": (current["w"] + rng.standard_normal(size) / 100).astype(dtype)}
    encoding = Encoding(compression, delta=True)
    content = encode(model, encoding, current, seed)
    tensor: Any = decode(content, Signature.of(model), encoding, current)["w"]
    expected = (current["w"].astype("f8") + held(bytes(content), size, dtype, compression)).astype(dtype)
    np.testing.assert_array_equal(whole(tensor), expected)
    start, stop = sorted(rng.integers(0, size + 1, 2).tolist())
    np.testing.assert_array_equal(tensor.reshape(-1)[start:stop], whole(tensor)[start:stop])
    np.testing.assert_array_equal(np.concatenate(list(tensor.blocks())), whole(tensor))
    assert (tensor.max(), tensor.min()) == (whole(tensor).max(), whole(tensor).min())


def test_an_encoded_tensor_is_an_array_to_who_computes_with_it() -> None:
    rng = np.random.default_rng(2)
    current = {"w": rng.standard_normal((30, 50)).astype("f4")}
    model = {"w": current["w"] + Float(0.25)}
    tensor: Any = through(model, Encoding("float16", delta=True), current)["w"]
    array = whole(tensor)
    assert isinstance(tensor, EncodedTensor)
    assert (tensor.shape, tensor.ndim, tensor.size, len(tensor), tensor.dtype.name) == (
        (30, 50),
        2,
        1500,
        30,
        "float32",
    )
    for result, expected in (
        (tensor - current["w"], array - current["w"]),
        (current["w"] - tensor, current["w"] - array),
        (2 * tensor, 2 * array),
        (np.sqrt(np.abs(tensor)), np.sqrt(np.abs(array))),
        (tensor.astype(np.float64), array.astype(np.float64)),
        (np.stack([tensor, tensor]), np.stack([array, array])),
        (tensor.mean(axis=0), array.mean(axis=0)),
        (tensor.max(axis=0), array.max(axis=0)),
        (tensor[3, 4:7], array[3, 4:7]),
        (tensor.reshape(50, 30), array.reshape(50, 30)),
        (tensor.T, array.T),
    ):
        np.testing.assert_array_equal(result, expected)
    with pytest.raises(ValueError, match="without making one"):
        np.asarray(tensor, copy=False)
    with pytest.raises(TypeError):
        tensor[0] = 1


def test_the_plain_encoding_is_the_model_codec() -> None:
    model = {"w": np.arange(5, dtype="f4"), "n": np.array(3)}
    assert encode(model, PLAIN) == tensors.encode(model)
    assert decode(tensors.encode(model), Signature.of(model), PLAIN)["w"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("compression", "value", "advice"),
    [("float16", 65_520.0, "bfloat16 or int8"), ("bfloat16", 3.4e38, "parameters"), ("int8", 1e300, "parameters")],
)
def test_a_value_out_of_range_is_refused_with_advice(compression: Compression, value: float, advice: str) -> None:
    model = {"w": np.array([1.0, value, 2.0])}
    with pytest.raises(CodecError, match=f"'w' of the update can't travel as {compression}.*{advice}"):
        encode(model, Encoding(compression))


@given(encodings, st.integers(-64, 64).filter(bool))
def test_a_buffer_of_another_length_is_refused(encoding: Encoding, difference: int) -> None:
    model = {"w": np.ones((40, 3), "f4")}
    content = bytes(encode(model, encoding, model))
    cut = content[:difference] if difference < 0 else content + bytes(difference)
    with pytest.raises(CodecError, match="bytes"):
        decode(cut, Signature.of(model), encoding, model)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    content = encode({"w": np.ones(2_000, "f4")}, Encoding("int8"))
    content[4:8] = Float(scale).tobytes()
    with pytest.raises(CodecError, match="scale that is negative, NaN or infinite"):
        decode(content, Signature.of({"w": np.ones(2_000, "f4")}), Encoding("int8"))


def test_a_code_that_no_encoder_writes_is_refused() -> None:
    model = {"w": np.ones(10, "f4")}
    content = encode(model, Encoding("int8"))
    content[4] = 0x80
    with pytest.raises(CodecError, match="holds −128"):
        decode(content, Signature.of(model), Encoding("int8"))


@pytest.mark.parametrize("compression", ["none", "float16", "bfloat16"])
def test_nan_and_infinity_are_found_in_whatever_form(compression: Compression) -> None:
    model, encoding = {"w": np.ones(CHUNK + 50, "f4")}, Encoding(compression, delta=True)
    content = encode(model, encoding, model)
    content[2 * CHUNK + 4 : 2 * CHUNK + 8] = b"\xff\xff\xff\xff"
    assert first_non_finite(decode(content, Signature.of(model), encoding, model)) == "w"


def test_a_difference_that_leaves_the_dtypes_range_is_found() -> None:
    current, encoding = {"w": np.full(3, 3e38, "f4")}, Encoding("int8", delta=True)
    content = encode({"w": np.full(3, 3e38, "f4")}, Encoding("int8"))
    assert first_non_finite(decode(content, Signature.of(current), encoding, current)) == "w"


@given(st.binary(min_size=128, max_size=128), encodings)
def test_any_bytes_are_a_finite_update_or_refused(content: bytes, encoding: Encoding) -> None:
    current = {"w": np.linspace(-1, 1, 30, dtype="f4"), "b": np.zeros(3, "f2")}
    signature = Signature.of(current)
    size = encoded_size(signature, encoding)
    try:
        decoded = decode((content * 2)[:size], signature, encoding, current)
    except CodecError:
        return
    finite = first_non_finite(decoded) is None
    with np.errstate(invalid="ignore"):
        assert finite == all(bool(np.isfinite(whole(tensor)).all()) for tensor in decoded.values())


def test_an_encoding_that_is_not_known_is_refused() -> None:
    with pytest.raises(CodecError, match="'int4', which is not known here"):
        Encoding("int4")  # type: ignore[arg-type]
