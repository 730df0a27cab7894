"""Stored files as responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

CHUNK_BYTES = 1024 * 1024
LINES_AT_ONCE = 1000


def file_response(request: HttpRequest, file: BinaryIO, size: int, filename: str) -> StreamingHttpResponse:
    """`file`, which will be closed, as a download of `size` bytes.

    Under ASGI, Django would read all of a `FileResponse` into memory before it sends the first byte.
    """
    if not isinstance(request, ASGIRequest):
        return FileResponse(file, as_attachment=True, filename=filename)
    response = StreamingHttpResponse(_chunks(file), content_type="application/octet-stream")
    response["Content-Length"] = str(size)
    response["Content-Disposition"] = content_disposition_header(True, filename)
    return response


def lines_response(
    request: HttpRequest, lines: Iterator[str], filename: str, content_type: str
) -> StreamingHttpResponse:
    """`lines` as a download that is made while it is sent, a few thousand at a time in memory."""
    pieces = ("".join(batch) for batch in iter(lambda: list(islice(lines, LINES_AT_ONCE)), []))
    body: Any = _in_turn(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = content_disposition_header(True, filename)
    return response


async def _in_turn(pieces: Iterator[str]) -> AsyncIterator[str]:
    while piece := await sync_to_async(lambda: next(pieces, ""))():
        yield piece


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
