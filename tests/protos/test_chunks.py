"""Chunks are framed as protobuf frames them, and read whatever way they are framed."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from protos import limits
from protos.chunks import read_chunk, read_upload, write_chunk, write_upload
from protos.fedui.v1 import transfer_pb2

sizes = st.one_of(st.integers(0, 300), st.sampled_from([16_379, 16_384, 65_536, limits.CHUNK_BYTES, 2**21]))
data = st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255))


@given(data)
def test_the_bytes_are_those_of_protobuf(content: bytes) -> None:
    chunk = transfer_pb2.Chunk(data=content)
    message = transfer_pb2.UploadMessage(chunk=chunk)
    if content:  # protobuf leaves out what is empty
        assert write_chunk(content) == chunk.SerializeToString()
        assert write_upload(memoryview(content)) == message.SerializeToString()
    assert transfer_pb2.UploadMessage.FromString(write_upload(memoryview(content))).chunk.data == content
    assert read_chunk(chunk.SerializeToString()) == read_chunk(write_chunk(content)) == content
    assert read_upload(message.SerializeToString()) == read_upload(write_upload(memoryview(content))) == content


def test_a_header_is_a_message() -> None:
    header = transfer_pb2.UploadMessage(header=transfer_pb2.UploadHeader(task_id="t", size=9))
    assert read_upload(write_upload(header)) == header
    assert read_upload(b"") == transfer_pb2.UploadMessage()


@given(st.binary(max_size=40))
def test_whatever_comes_is_read_as_protobuf_reads_it(content: bytes) -> None:
    try:
        expected = transfer_pb2.UploadMessage.FromString(content)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_upload(content)
        return
    read = read_upload(content)
    assert read == (expected.chunk.data if expected.HasField("chunk") else expected)


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_other_ways_of_framing_are_read_too(one: bytes, other: bytes) -> None:
    """Fields may come twice, of which the last counts, and there may be fields of a newer version."""
    twice = write_upload(memoryview(one)) + write_upload(memoryview(other)) + b"\xf8\x07\x01"
    assert read_upload(twice) == transfer_pb2.UploadMessage.FromString(twice).chunk.data == other
    chunk = write_chunk(one) + b"\xf8\x07\x01"
    assert read_chunk(chunk) == one
