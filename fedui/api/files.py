"""Stored files as responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import BinaryIO

from django.core.handlers.asgi import ASGIRequest
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

CHUNK_BYTES = 1024 * 1024


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


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
