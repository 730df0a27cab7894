"""The largest differences alone: which, what stays, and what nobody's encoder writes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from protos.encodings import Encoding, decode, encode, encoded_size, first_non_finite
from protos.tensors import CodecError, Parameters, Signature
from protos.wire_forms import CHUNK

Float = np.float32
values = st.floats(-1e6, 1e6, width=32)
vectors = st.integers(3, 200).flatmap(
    lambda n: st.tuples(*(npst.arrays(Float, n, elements=values) for _ in range(3)))  # current, trained, residual
)
fractions = st.floats(0.001, 0.3)


def top_k(keep: float) -> Encoding:
    return Encoding("top_k", delta=True, keep=keep)


def sent(content: bytearray, size: int, keep: float) -> NDArray[Any]:
    """The differences that travel, 0 where none does."""
    zeros: Parameters = {"w": np.zeros(size, Float)}
    return np.asarray(decode(content, Signature.of(zeros), top_k(keep), zeros)["w"])


@given(vectors, fractions)
def test_each_coordinate_is_either_sent_or_kept(arrays: tuple[NDArray[Any], ...], keep: float) -> None:
    current, trained, before = arrays
    count = math.ceil(trained.size * keep)
    assume(8 * count < 4 * trained.size)  # or else all of them travel, as they are
    residual = {"w": before.copy()}
    content = encode({"w": trained}, top_k(keep), {"w": current}, residual=residual)
    total = (before.astype("f8") + (trained.astype("f8") - current)).astype("f4")
    on_the_way, stays = sent(content, trained.size, keep), residual["w"]
    assert (on_the_way + stays == total).all()
    assert ((on_the_way == 0) | (stays == 0)).all()
    assert len(content) == encoded_size(Signature.of({"w": trained}), top_k(keep)) == -(-8 * count // 64) * 64
    assert np.count_nonzero(on_the_way) <= count
    largest = np.sort(np.abs(total))[::-1]
    assert np.array_equal(np.sort(np.abs(on_the_way))[::-1][:count], largest[:count].astype("f8"))


def test_a_tensor_that_would_not_get_smaller_travels_whole() -> None:
    ones, residual = np.ones(4, Float), {"w": np.zeros(4, Float)}
    content = encode({"w": ones}, top_k(0.3), {"w": np.zeros(4, Float)}, residual=residual)
    assert sent(content, 4, 0.3).tolist() == ones.tolist()
    assert not residual["w"].any()


@given(vectors, fractions)
def test_what_is_not_counted_gives_its_mass_back(arrays: tuple[NDArray[Any], ...], keep: float) -> None:
    """Over rounds of which one isn't counted: the residual that goes on is that of the last counted one."""
    zero, step, _ = arrays
    zero, counted = np.zeros_like(zero), {"w": np.zeros_like(zero)}
    model = np.zeros(zero.size)
    for in_model in (True, False, True):
        residual = {"w": counted["w"].copy()}
        content = encode({"w": step}, top_k(keep), {"w": zero}, residual=residual)
        if in_model:
            model, before = model + sent(content, zero.size, keep), counted["w"]
            expected = (before.astype("f8") + step).astype("f4")
            counted = residual
            assert (sent(content, zero.size, keep) + counted["w"] == expected).all()
    assert np.allclose(model + counted["w"], 2 * step.astype("f8"), rtol=1e-6, atol=1e-6)


def test_of_equal_sizes_the_first_are_sent_in_chunks_too() -> None:
    size = CHUNK + 1_000
    current = {"w": np.zeros(size, "f4")}
    residual: dict[str, NDArray[Any]] = {}
    step = np.ones(size, "f4")
    step[-1] = -3
    content = encode({"w": step}, top_k(0.25), current, residual=residual)
    (places,) = np.nonzero(sent(content, size, 0.25))
    count = math.ceil(size * 0.25)
    assert places.tolist() == [*range(count - 1), size - 1]
    assert residual["w"][count:-1].all() and residual["w"][-1] == 0


def test_a_coordinate_that_is_small_for_long_is_sent_at_last() -> None:
    current = {"w": np.zeros(100, "f4")}
    step = np.full(100, 0.2, "f4")
    step[0] = 1
    residual: dict[str, NDArray[Any]] = {}
    seen = np.zeros(100)
    for _ in range(20):
        seen += sent(encode({"w": step}, top_k(0.1), current, residual=residual), 100, 0.1)
    assert (seen > 0).all()
    np.testing.assert_allclose(seen + residual["w"], 20 * step, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_all_dtypes_and_those_that_would_not_get_smaller(dtype: str) -> None:
    rng = np.random.default_rng(2)
    current: Parameters = {"w": rng.standard_normal((40, 5)).astype(dtype), "b": np.zeros(1, dtype), "n": np.array(3)}
    trained = {name: np.asarray(array + 1).astype(array.dtype) for name, array in current.items()}
    decoded = decode(encode(trained, top_k(0.1), current), Signature.of(current), top_k(0.1), current)
    moved = np.asarray(decoded["w"]) != current["w"]
    assert np.count_nonzero(moved) == 20 or dtype == "f2"  # where a float16 plus 1 may be itself
    assert decoded["w"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(decoded["b"], trained["b"])
    assert decoded["n"] == 4


def test_a_residual_of_another_model_begins_anew() -> None:
    residual: dict[str, NDArray[Any]] = {"w": np.ones(7, "f4")}
    content = encode({"w": np.ones(100, "f4")}, top_k(0.1), {"w": np.zeros(100, "f4")}, residual=residual)
    assert np.count_nonzero(sent(content, 100, 0.1)) == 10
    assert residual["w"].sum() == 90


@pytest.mark.parametrize("largest", [3e38, np.float64(1e300)])
def test_a_difference_beyond_float32_is_refused_with_advice(largest: float) -> None:
    current, trained = {"w": np.full(100, -largest, "f8")}, {"w": np.full(100, largest, "f8")}
    with pytest.raises(CodecError, match="out of their range. Let the strategy send parameters"):
        encode(trained, top_k(0.1), current)


def hostile(places: list[int], numbers: list[float]) -> bytes:
    """An update of 100 values of which 4 are sent."""
    return np.array(places, "<u4").tobytes() + np.array(numbers, "<f4").tobytes() + bytes(32)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ([0, 1, 2, 100], "a value at 100 of 100"),
        ([0, 1, 2, 2**32 - 1], "a value at 4,294,967,295 of 100"),
        ([0, 1, 1, 2], "don't ascend"),
        ([3, 2, 1, 0], "don't ascend"),
        ([200, 1, 2, 3], "don't ascend"),
    ],
)
def test_places_that_no_encoder_writes_are_refused(places: list[int], reason: str) -> None:
    current: Parameters = {"w": np.zeros(100, "f4")}
    with pytest.raises(CodecError, match=reason):
        decode(hostile(places, [1, 1, 1, 1]), Signature.of(current), top_k(0.04), current)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_found(number: float) -> None:
    current: Parameters = {"w": np.zeros(100, "f4")}
    decoded = decode(hostile([5, 6, 7, 99], [1, 1, 1, number]), Signature.of(current), top_k(0.04), current)
    assert first_non_finite(decoded) == "w"


@given(st.binary(min_size=64, max_size=64))
def test_any_bytes_are_read_in_parts_as_they_are_whole_or_refused(content: bytes) -> None:
    current: Parameters = {"w": np.linspace(-1, 1, 100, dtype="f4")}
    try:
        decoded: Any = decode(content, Signature.of(current), top_k(0.04), current)["w"]
    except CodecError:
        return
    whole = np.asarray(decoded)
    assert np.concatenate([decoded[start : start + 7] for start in range(0, 100, 7)]).tobytes() == whole.tobytes()
    assert np.count_nonzero(whole.view("u4") != current["w"].view("u4")) <= 4


@pytest.mark.parametrize("keep", [0.0, -0.1, 0.51, math.nan, math.inf])
def test_a_fraction_that_is_none_is_refused(keep: float) -> None:
    with pytest.raises(CodecError, match="more than 0 and at most 50%"):
        Encoding("top_k", delta=True, keep=keep)


def test_parameters_are_not_sent_in_part() -> None:
    with pytest.raises(CodecError, match="top_k sends differences"):
        Encoding("top_k", delta=False, keep=0.1)
    with pytest.raises(CodecError, match="of top_k alone"):
        Encoding("int8", delta=True, keep=0.1)
