"""Stored files as responses."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, BinaryIO

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, quote_etag

from aggregator.files import Files

CHUNK_BYTES = 1024 * 1024
LINES_AT_ONCE = 1000


def stored_file_response(
    request: HttpRequest, files: Files, key: str, size: int, sha256: str, filename: str
) -> HttpResponseBase:
    """A file of the model store as a download. The ETag is its SHA-256."""
    etag = quote_etag(sha256)
    if unchanged := get_conditional_response(request, etag=etag):
        return unchanged
    try:
        file = files.open(key)
    except FileNotFoundError as error:
        raise Http404(f"{filename} is missing from the model store.") from error
    response = file_response(request, file, size, filename, etag)
    for name, value in sha256_headers(sha256).items():
        response[name] = value
    return response


def file_response(
    request: HttpRequest, file: BinaryIO, size: int, filename: str, etag: str = ""
) -> StreamingHttpResponse | HttpResponse:
    """`file`, which will be closed, as a download of its `size` bytes, or of the range that was asked for (RFC 9110).

    Under ASGI, Django would read all of a `FileResponse` into memory before it sends the first byte.
    """
    found = _asked_range(request, size, etag)
    if found is not None and found.start >= found.stop:
        file.close()
        return HttpResponse(status=416, headers={"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"})
    wanted = found or range(size)
    file.seek(wanted.start)
    chunks: Any = _in_threads(file, len(wanted)) if isinstance(request, ASGIRequest) else _chunks(file, len(wanted))
    response = StreamingHttpResponse(
        chunks, content_type="application/octet-stream", status=200 if found is None else 206
    )
    response["Content-Length"] = str(len(wanted))
    response["Content-Disposition"] = content_disposition_header(True, filename) or "attachment"
    response["Accept-Ranges"] = "bytes"
    if found is not None:
        response["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
    if etag:
        response["ETag"] = etag
    return response


def sha256_headers(sha256: str) -> dict[str, str]:
    """The checksum of the whole file, in hexadecimal and as RFC 9530 has it."""
    encoded = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"X-Checksum": f"sha256={sha256}", "Repr-Digest": f"sha-256=:{encoded}:"}


def _asked_range(request: HttpRequest, size: int, etag: str) -> range | None:
    """The one range that is asked for; None for the whole file: several ranges, and what isn't understood, may be passed over."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", request.headers.get("Range", "").strip(), re.ASCII)
    if not match or match[0] == "bytes=-" or request.headers.get("If-Range", etag) != etag:
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


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


def _chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    with file:
        while length > 0 and (chunk := file.read(min(CHUNK_BYTES, length))):
            length -= len(chunk)
            yield chunk


async def _in_threads(file: BinaryIO, length: int) -> AsyncIterator[bytes]:
    chunks = _chunks(file, length)
    try:
        while chunk := await asyncio.to_thread(next, chunks, b""):
            yield chunk
    finally:
        file.close()
