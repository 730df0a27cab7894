"""Chunks on the wire: the very bytes that protobuf makes of them, with fewer copies.

Most of what crosses the network is chunks, and protobuf copies each one several times, out and in. Here a chunk is framed
in one copy, and read as a view of what came. Whatever is framed otherwise, protobuf reads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from protos.fedui.v1 import transfer_pb2
from protos.wire_forms import Buffer

_DATA, _CHUNK = b"\x0a", b"\x12"
"""Keys on the wire: `data` of a `Chunk`, and `chunk` of an `UploadMessage`."""
_LONGEST_PREFIX = 12

Prefix = Callable[[int], bytes]
"""What comes before so many bytes of data."""


def write_chunk(data: Buffer) -> bytes:
    """The `Chunk` that holds `data`."""
    return b"".join((_chunk_prefix(len(data)), data))


def read_chunk(message: bytes) -> memoryview:
    """The data of a `Chunk`."""
    data = _read(message, _prefix_of_chunk(len(message)))
    return memoryview(transfer_pb2.Chunk.FromString(message).data) if data is None else data


def write_upload(message: transfer_pb2.UploadMessage | memoryview) -> bytes:
    """The message, or the one whose chunk holds the data."""
    if isinstance(message, transfer_pb2.UploadMessage):
        return message.SerializeToString()
    return b"".join((_upload_prefix(len(message)), message))


def read_upload(message: bytes) -> transfer_pb2.UploadMessage | memoryview:
    """The data of its chunk; the message if it has none."""
    data = _read(message, _prefix_of_upload(len(message)))
    if data is not None:
        return data
    read = transfer_pb2.UploadMessage.FromString(message)
    return memoryview(read.chunk.data) if read.HasField("chunk") else read


def _read(message: bytes, prefix: bytes) -> memoryview | None:
    return memoryview(message)[len(prefix) :] if prefix and message.startswith(prefix) else None


def _chunk_prefix(size: int) -> bytes:
    return _DATA + varint(size)


def _upload_prefix(size: int) -> bytes:
    inner = _chunk_prefix(size)
    return _CHUNK + varint(len(inner) + size) + inner


@lru_cache(maxsize=64)
def _prefix_of(prefix: Prefix, total: int) -> bytes:
    """That of a message of `total` bytes, prefix included; empty where there is none so long."""
    found = (prefix(total - length) for length in range(2, min(_LONGEST_PREFIX, total)))
    return next((made for length, made in enumerate(found, start=2) if len(made) == length), b"")


_prefix_of_chunk, _prefix_of_upload = partial(_prefix_of, _chunk_prefix), partial(_prefix_of, _upload_prefix)


def varint(number: int) -> bytes:
    """As protobuf writes lengths, and keys of fields."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
