"""Models down and updates up: in chunks, resumed after a lost connection, verified by their hash."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from client_agent import backoff
from client_agent.channel import open_channel
from client_agent.departures import Departures
from client_agent.errors import TransferError, UpdateTooLate
from client_agent.execution import Update
from client_agent.identity import Identities, Identity
from client_agent.shared_models import SharedModels
from client_agent.speed import Speed
from protos import limits
from protos.chunks import read_chunk, write_upload
from protos.convert import encoding_to_proto, packing_from_proto, signature_to_proto
from protos.fedui.v1 import task_pb2, transfer_pb2, transfer_pb2_grpc
from protos.packing import unpack
from protos.tensors import CodecError

log = logging.getLogger(__name__)

HASH_BYTES = 8 * limits.CHUNK_BYTES
"""Hashed at a time, in a thread."""
QUICK_RATE = 2 * limits.QUICK_CHUNK_BYTES
"""Bytes a second of the last upload, from which on the next one is sent in large chunks: on a slow line one would take too long."""
STALL_SECONDS = 60.0
"""A transfer that moves nothing for so long has lost its connection."""

_FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
}

Report = Callable[[float], None]
"""Takes the fraction that has been transferred."""


class _Download:
    """A model on its way, hashed as it comes."""

    def __init__(self, packing: str, sha256: str, size: int) -> None:
        self.packing, self.sha256 = packing, sha256
        self.content = bytearray(size)
        self.received = 0
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._hashing: asyncio.Task[None] | None = None

    async def take(self, data: memoryview) -> None:
        end = self.received + len(data)
        if end > len(self.content):
            raise TransferError("The server sent more bytes than the model has.")
        self.content[self.received : end] = data
        self.received = end
        if end - self._hashed >= HASH_BYTES:
            await self._hash_rest()

    async def is_right(self) -> bool:
        await self._hash_rest()
        await self._until_hashed()
        return self._hash.hexdigest() == self.sha256

    async def _hash_rest(self) -> None:
        """In a thread, while more arrives."""
        await self._until_hashed()
        rest, self._hashed = memoryview(self.content)[self._hashed : self.received], self.received
        self._hashing = asyncio.create_task(asyncio.to_thread(self._hash.update, rest))

    async def _until_hashed(self) -> None:
        if self._hashing:
            await asyncio.wait({self._hashing})  # whoever is cancelled meanwhile doesn't end it


class Transfer:
    """One transfer at a time, on a connection of its own, so that a large model never delays a heartbeat."""

    def __init__(
        self,
        identities: Identities,
        departures: Departures,
        max_delay: float = backoff.MAX_SECONDS,
        models: SharedModels | None = None,
        speed: Speed | None = None,
    ) -> None:
        self._identities = identities
        self._departures = departures
        self._models = models
        self._opened_as: Identity | None = None
        self._max_delay = max_delay
        self._channel: grpc.aio.Channel | None = None
        self._hurry = asyncio.Event()
        self._unfinished: _Download | None = None
        self._speed = speed or Speed()
        self._server: transfer_pb2.UploadStatus | None = None
        """What the server that was asked last is able to, if no other has come since."""

    async def download(self, task_id: str, model: task_pb2.ModelRef, report: Report) -> bytes | bytearray:
        """The model's bytes, which are the task's own if they can be changed.

        Raises `TransferError` when the server refuses or sends what doesn't fit its own hash.
        """
        if self._models is None:
            return await self._download(task_id, model, report)
        return await self._models.get(model.sha256, lambda: self._download(task_id, model, report))

    async def _download(self, task_id: str, model: task_pb2.ModelRef, report: Report) -> bytearray:
        """A model that was not finished is gone on with, under whichever task: a server that has begun anew asks by another one."""
        wanted, download = _as_sent(model), self._unfinished
        if download is None or (download.packing, download.sha256, len(download.content)) != wanted:
            download = self._unfinished = _Download(*wanted)
        await self._persist(lambda: self._download_rest(task_id, download, report))
        self._unfinished = None
        if not await download.is_right():
            raise TransferError("The downloaded model doesn't have the SHA-256 that the server announced.")
        if download.packing:
            return await asyncio.to_thread(_unpacked, download.content, model)
        return download.content

    async def upload(self, task_id: str, update: Update, report: Report, *, fresh: bool = False) -> None:
        """Returns once the server has the whole update. Raises `TransferError` when it refuses.

        Of a `fresh` one the server can have nothing yet, unless an attempt has failed.
        """
        known = self._server if fresh and self._server and self._server.announces_turn else None
        is_quick = (self._speed.up or 0) > QUICK_RATE

        async def attempt() -> None:
            nonlocal known, is_quick
            status, known = known, None
            quick, is_quick = is_quick, False  # an interruption may mean that the line is another one now
            await self._upload_rest(task_id, update, report, status, quick=quick)

        await self._persist(attempt)

    def server_is_back(self) -> None:
        """Or another in its place. Cuts the pause after the present attempt short."""
        self._server = None
        self._hurry.set()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _persist(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Repeat `attempt` until it succeeds or the server refuses for good; the server's clock decides how long."""
        for delay in backoff.delays(self._max_delay):
            self._hurry.clear()
            if self._opened_as is not self._identities.current:
                await self.close()
            try:
                await attempt()
                return
            except grpc.aio.AioRpcError as error:
                if limits.LATE_SECONDS in dict(error.trailing_metadata() or ()):
                    raise UpdateTooLate(error.details()) from error
                if error.code() in _FINAL:
                    raise TransferError(f"The server refused the transfer: {error.details()}") from error
                reason = f"{error.code().name}: {error.details()}"
            except TimeoutError:
                reason = f"nothing moved for {STALL_SECONDS:.0f} s"
            log.warning("Transfer interrupted (%s); next attempt in %.1f s", reason, delay)
            await self.close()
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)

    async def _download_rest(self, task_id: str, download: _Download, report: Report) -> None:
        request = transfer_pb2.DownloadRequest(task_id=task_id, offset=download.received, packing=download.packing)
        size, begun = len(download.content), time.monotonic()
        async with asyncio.timeout(STALL_SECONDS) as stall:
            async for data in self._stub().download(request):
                stall.reschedule(_stall_deadline())
                await download.take(data)
                report(download.received / max(1, size))
        if download.received < size:
            raise TransferError(f"The server ended the model after {download.received:,} of {size:,} bytes.")
        self._speed.downloaded(size - request.offset, begun)

    async def _upload_rest(
        self, task_id: str, update: Update, report: Report, status: transfer_pb2.UploadStatus | None, *, quick: bool
    ) -> None:
        """`status` is asked for where it isn't known. In chunks as large as the server takes them, where the line is `quick`."""
        async with asyncio.timeout(STALL_SECONDS) as stall:
            if status is None:
                request = transfer_pb2.GetUploadRequest(task_id=task_id, sha256=update.sha256)
                status = await self._stub().get_upload(request)
                self._server = transfer_pb2.UploadStatus(
                    announces_turn=status.announces_turn, largest_chunk=status.largest_chunk
                )
            if status.complete:
                return

            def moved(fraction: float) -> None:
                stall.reschedule(_stall_deadline())
                report(fraction)

            leaving = await self._departures.update(task_id, update, status.received)
            turn = asyncio.Event()
            chunk = min(
                max(limits.CHUNK_BYTES, status.largest_chunk), limits.QUICK_CHUNK_BYTES if quick else limits.CHUNK_BYTES
            )
            call = self._stub().upload(_messages(task_id, leaving, status.received, chunk, turn, moved))
            try:
                if status.announces_turn:
                    stall.reschedule(None)  # others come first; that the server is there, keepalive watches
                    await call.initial_metadata()
                    stall.reschedule(_stall_deadline())
                turn.set()
                begun = time.monotonic()
                await call
                self._speed.uploaded(len(update.content) - status.received, begun)
            finally:
                call.cancel()  # of no effect once it has ended

    def _stub(self) -> _Stub:
        if self._channel is None:
            self._opened_as = self._identities.current
            self._channel = open_channel(self._opened_as)
        return _Stub(self._channel)


class _Stub:
    """As the generated one, but for the chunks, of which fewer copies are made."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        service = transfer_pb2.DESCRIPTOR.services_by_name["Transfer"].full_name
        self.get_upload = transfer_pb2_grpc.TransferStub(channel).GetUpload
        self.download = channel.unary_stream(
            f"/{service}/Download", transfer_pb2.DownloadRequest.SerializeToString, read_chunk
        )
        self.upload = channel.stream_unary(f"/{service}/Upload", write_upload, transfer_pb2.UploadReceipt.FromString)


async def _messages(
    task_id: str, update: Update, offset: int, chunk: int, turn: asyncio.Event, report: Report
) -> AsyncIterator[transfer_pb2.UploadMessage | memoryview]:
    yield transfer_pb2.UploadMessage(
        header=transfer_pb2.UploadHeader(
            task_id=task_id,
            offset=offset,
            size=len(update.content),
            sha256=update.sha256,
            signature=signature_to_proto(update.signature),
            num_examples=update.num_examples,
            metrics=update.metrics,
            encoding=encoding_to_proto(update.encoding, update.packing),
            work=transfer_pb2.LocalWork(done=update.steps[0], planned=update.steps[1]) if update.steps else None,
        )
    )
    await turn.wait()
    view = memoryview(update.content)
    for start in range(offset, len(view), chunk):
        end = min(start + chunk, len(view))
        yield view[start:end]
        report(end / len(view))


def _as_sent(model: task_pb2.ModelRef) -> tuple[str, str, int]:
    """How the model is packed when it is asked for, and the SHA-256 and size of that; as it is where the packing isn't known here."""
    packed = model.packed
    if packed.packing and packing_from_proto(packed.packing) and packed.size < model.size:
        return packed.packing, packed.sha256, packed.size
    return "", model.sha256, model.size


def _unpacked(packed: bytearray, model: task_pb2.ModelRef) -> bytearray:
    """Raises `TransferError` where that isn't the model that was announced."""
    content, received, digest = bytearray(model.size), 0, hashlib.sha256()
    try:
        for block in unpack(packed, model.size):
            content[received : received + len(block)] = block
            received += len(block)
            digest.update(block)
    except CodecError as error:
        raise TransferError(f"The downloaded model is damaged. {error}") from error
    if digest.hexdigest() != model.sha256:
        raise TransferError("The unpacked model doesn't have the SHA-256 that the server announced.")
    return content


def _stall_deadline() -> float:
    return asyncio.get_running_loop().time() + STALL_SECONDS
