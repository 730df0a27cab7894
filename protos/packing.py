"""Packing: bytes made smaller on their way without a loss, by Zstandard, whatever they are.

Whoever unpacks is told beforehand how many bytes there will be, and never holds more: what a stranger has packed is read in
blocks, and the first byte too many ends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import zstandard

from protos.tensors import CodecError
from protos.wire_forms import Buffer

Packing = Literal["none", "zstd"]

LEVEL = 1
"""Of Zstandard. Trained numbers hardly get smaller at higher ones."""
BLOCK = 1024 * 1024
MOST_WINDOW = 8 * 1024 * 1024
"""Bytes that a frame may ask its reader to keep: what Zstandard recommends that every reader grants."""
WORTHWHILE = 0.95
"""Packed bytes are sent where they are no more than this part of the others."""


def pack(content: Buffer) -> bytearray | None:
    """None where it isn't worthwhile. Takes time, and no memory beyond that of the result."""
    most, view = int(len(content) * WORTHWHILE), memoryview(content)
    packer = zstandard.ZstdCompressor(level=LEVEL).compressobj(size=len(content))
    packed = bytearray()
    for start in range(0, len(view), BLOCK):
        packed += packer.compress(view[start : start + BLOCK])
        if len(packed) > most:
            return None
    packed += packer.flush()
    return packed if len(packed) <= most else None


def unpack(packed: Buffer, size: int) -> Iterator[bytes]:
    """The `size` bytes that were packed, in blocks of at most `BLOCK`. Raises `CodecError`, maybe after some of them."""
    received = 0
    try:
        with zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW).stream_reader(
            packed, read_across_frames=True
        ) as reader:
            while block := reader.read(BLOCK):
                received += len(block)
                if received > size:
                    raise CodecError(f"The packed bytes hold more than the {size:,} that they should.")
                yield block
    except zstandard.ZstdError as error:
        raise CodecError(f"The packed bytes can't be unpacked: {error}.") from error
    if received != size:
        raise CodecError(f"The packed bytes hold {received:,}, not {size:,} as they should.")
