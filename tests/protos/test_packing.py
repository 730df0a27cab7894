"""Packed bytes: what comes out is what went in, and a bomb is none."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from protos.packing import BLOCK, MOST_WINDOW, pack, unpack
from protos.tensors import CodecError


def unpacked(packed: bytes | bytearray, size: int) -> bytes:
    return b"".join(unpack(packed, size))


@given(st.binary(min_size=1, max_size=50), st.integers(1, 2_000))
def test_what_is_worth_packing_comes_out_as_it_was(piece: bytes, times: int) -> None:
    content = piece * times
    packed = pack(content)
    if packed is not None:
        assert len(packed) <= 0.95 * len(content)
        assert unpacked(packed, len(content)) == content


def test_blocks_are_bounded() -> None:
    content = bytes(5 * BLOCK + 3)
    packed = pack(memoryview(content))
    assert packed is not None
    assert max(len(block) for block in unpack(packed, len(content))) <= BLOCK


@pytest.mark.parametrize("content", [b"", os.urandom(3 * BLOCK)])
def test_what_does_not_get_smaller_stays(content: bytes) -> None:
    assert pack(content) is None


def frame(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


WIDE = zstandard.ZstdCompressionParameters(window_log=26)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (frame(bytes(1_001)), "more than the 1,000"),
        (frame(bytes(500)) + frame(bytes(501)), "more than the 1,000"),
        (frame(bytes(999)), "hold 999, not 1,000"),
        (frame(bytes(1_000))[:-3], "not 1,000 as they should"),
        (frame(bytes(1_000)) + b"more", "can't be unpacked"),
        (b"no frame at all", "can't be unpacked"),
        (b"", "hold 0, not 1,000"),
    ],
)
def test_what_lies_about_its_size_or_is_damaged_is_refused(packed: bytes, reason: str) -> None:
    with pytest.raises(CodecError, match=reason):
        unpacked(packed, 1_000)


def test_a_bomb_takes_no_more_memory_than_a_block_and_a_window() -> None:
    bomb = frame(bytes(2**28))
    tracemalloc.start()
    with pytest.raises(CodecError, match="more than the 4,096"):
        unpacked(bomb, 4_096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(bomb) < 2**16
    assert peak < 4 * BLOCK


def test_a_frame_that_asks_for_too_large_a_window_is_refused() -> None:
    content = np.random.default_rng(1).integers(0, 4, 2 * MOST_WINDOW, np.uint8).tobytes()
    packer = zstandard.ZstdCompressor(compression_params=WIDE).compressobj()
    packed = packer.compress(content) + packer.flush()
    with pytest.raises(CodecError, match="can't be unpacked"):
        unpacked(packed, len(content))
