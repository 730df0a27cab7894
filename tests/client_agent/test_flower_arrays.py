"""Arrays of Flower's stream: NumPy's files, and never a pickle."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy
from numpy.typing import NDArray

from client_agent.flower.arrays import as_declared, from_flower, to_flower
from protos.tensors import CodecError, Signature


def saved(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


@pytest.mark.parametrize(
    "array",
    [
        np.array(5.0),
        np.zeros((0, 3), np.float32),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::2],
        np.array([True, False]),
    ],
)
def test_what_flower_saves_is_read_and_what_is_written_flower_loads(array: NDArray[Any]) -> None:
    (read,) = from_flower([saved(array)])
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype
    written = b"".join(to_flower(array))
    np.testing.assert_array_equal(np.load(io.BytesIO(written), allow_pickle=False), array)


def lying(shape: str) -> bytes:
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": eval(shape)})
    return file.getvalue() + bytes(16)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no .npy file"),
        (b"\x93NUMPY\x09\x00", "no .npy file"),
        (saved(np.zeros(3))[:-1], "23 bytes"),
        (lying("(10**15,)"), "not those of its shape"),
        (lying("(-1,)"), "not those of its shape"),
        (lying("(-2, -1)"), "not those of its shape"),
        (saved(np.array([print], object), allow_pickle=True), "Python objects"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_before_anything_is_made_of_it(content: bytes, reason: str) -> None:
    with pytest.raises(CodecError, match=reason):
        from_flower([content])


def test_values_of_the_same_kind_take_the_declared_dtype_and_others_stay() -> None:
    declared = Signature.of({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.int64), "c": np.zeros(2, np.int64)})
    given = [np.array([1.5, 1e300]), np.array([1, 2], np.int32), np.array([1.5, 2.5])]
    a, b, c = as_declared(given, declared)
    assert a.tolist() == [1.5, np.inf]
    assert [array.dtype.name for array in (a, b, c)] == ["float32", "int64", "float64"]
    assert as_declared(given[:2], declared) == given[:2]
