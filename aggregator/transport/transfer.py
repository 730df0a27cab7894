"""The Transfer service: models down, updates up."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import grpc
from grpc import aio

from aggregator import log_context
from aggregator.failpoints import failpoint
from aggregator.hub import Assignment, Hub, TooLate, Update, UpdateRefused, Work
from aggregator.ports import ClientIdentity, ClientRegistry
from aggregator.transport.calls import OpenCalls
from aggregator.transport.identity import authenticate, refuse
from aggregator.transport.pace import Pace, StreamEnded, TransferLimits, TransferStream, chunk_bytes_after
from aggregator.transport.uploads import Damaged, EndedEarly, PartialUpload, SpoolFull, Uploads
from protos import limits
from protos.chunks import read_upload, write_chunk
from protos.convert import Scalars, encoding_from_proto, scalars_from_proto, signature_from_proto
from protos.encodings import Encoding, encoded_size
from protos.fedui.v1 import task_pb2, transfer_pb2, transfer_pb2_grpc
from protos.tensors import CodecError, Signature

logger = logging.getLogger(__name__)

MOST_REFUSALS = 10
"""An agent that sends what can't be taken in, again and again, loses its task."""
SMALL_BYTES, SMALL_PER_SECOND = 16 * 1024, 50.0
"""Only the last chunk of an update is small. Each costs as much as a large one, and those who send nothing else are slowed down."""
CLOSED = "The round was closed before the update arrived."

Context = aio.ServicerContext[Any, Any]
Messages = AsyncIterator[transfer_pb2.UploadMessage | memoryview]
"""A header, then the data of chunks (`protos.chunks`)."""


def add_transfer_to(server: aio.Server, servicer: TransferServicer) -> None:
    """As the generated code does it, but for the chunks, of which fewer copies are made."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Download": grpc.unary_stream_rpc_method_handler(
            servicer.Download, transfer_pb2.DownloadRequest.FromString, write_chunk
        ),
        "GetUpload": grpc.unary_unary_rpc_method_handler(
            servicer.GetUpload,
            transfer_pb2.GetUploadRequest.FromString,
            transfer_pb2.UploadStatus.SerializeToString,
        ),
        "Upload": grpc.stream_unary_rpc_method_handler(
            servicer.Upload, read_upload, transfer_pb2.UploadReceipt.SerializeToString
        ),
    }
    name = transfer_pb2.DESCRIPTOR.services_by_name["Transfer"].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


class TransferServicer(transfer_pb2_grpc.TransferServicer):
    """`folder` holds partial uploads, and is this engine's alone."""

    def __init__(
        self, hub: Hub, registry: ClientRegistry, calls: OpenCalls, folder: Path, transfer_limits: TransferLimits
    ) -> None:
        self._hub = hub
        self._registry = registry
        self._calls = calls
        self._limits = transfer_limits
        self._uploads = Uploads(folder, transfer_limits)
        self._turns = asyncio.Semaphore(transfer_limits.uploads_at_once)
        self._sweep: asyncio.TimerHandle | None = None
        self._streams: dict[tuple[str, str, str], TransferStream] = {}
        self._places: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._sweep_later()  # an earlier engine may have left something, and nobody upload for a long time

    async def Download(  # type: ignore[override]  # written with `context`, so that a reader who stops can be left
        self, request: transfer_pb2.DownloadRequest, context: Context
    ) -> None:
        assignment = await self._assignment(request.task_id, context)
        if request.packing not in ("", assignment.task.model.packed.packing):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "The model isn't sent packed like that.")
        model = memoryview(assignment.packed_model if request.packing else assignment.model)
        if not model and assignment.task.model.size:
            await refuse(
                context, grpc.StatusCode.NOT_FOUND, "The model isn't sent any more: the task's update is here."
            )
        if request.offset > len(model):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"The model is sent as {len(model):,} bytes.")
        try:
            async with self._stream_of(assignment, "download") as stream, stream.limited():
                await self._send(stream, assignment, model[request.offset :], context)
        except StreamEnded as ended:
            await self._end(context, assignment, f"The download was ended. {ended}")

    async def _send(self, stream: TransferStream, assignment: Assignment, rest: memoryview, context: Context) -> None:
        pace, size = self._pace_of(assignment), limits.CHUNK_BYTES
        stream.start()
        while rest:
            if not self._is_open(assignment):
                raise StreamEnded("The task is over.")
            chunk, rest = rest[:size], rest[size:]
            begun = time.monotonic()
            await context.write(chunk)
            assignment.bytes_down += len(chunk)
            stream.moved(len(chunk))
            await pace.keep(len(chunk))
            size = chunk_bytes_after(time.monotonic() - begun)

    async def GetUpload(self, request: transfer_pb2.GetUploadRequest, context: Context) -> transfer_pb2.UploadStatus:
        return self._uploads.status(_owner(await self._assignment(request.task_id, context)), request)

    async def Upload(self, request_iterator: Messages, context: Context) -> transfer_pb2.UploadReceipt:
        client, _ = await authenticate(self._registry, context, self._calls.of_stream)
        header = await self._receive_header(request_iterator, context)
        assignment = await self._assignment_of(client, header.task_id, context)
        await failpoint(f"upload-{client.name}", assignment.task.round)
        try:
            async with self._stream_of(assignment, "upload") as stream:
                return await self._take_upload(stream, assignment, header, request_iterator, context)
        except EndedEarly as early:  # a connection that was cut can look like this
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(early))
        except (UpdateRefused, CodecError) as refusal:
            self._uploads.discard(header.task_id)
            if isinstance(refusal, TooLate):
                await _refuse_late(context, refusal)
            self._note_refusal(assignment, str(refusal))
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        except Damaged as damage:
            self._uploads.discard(header.task_id)
            await refuse(context, grpc.StatusCode.ABORTED, str(damage))
        except StreamEnded as ended:
            await self._end(context, assignment, f"The upload was ended. {ended}")
        except (SpoolFull, OSError) as error:
            logger.error("An upload can't be kept: %s", error, extra={"client_id": assignment.client_id})
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "The server has no room for the upload now.")

    async def _receive_header(self, messages: Messages, context: Context) -> transfer_pb2.UploadHeader:
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                first = await anext(messages, transfer_pb2.UploadMessage())
        except TimeoutError:
            await refuse(context, grpc.StatusCode.ABORTED, "No header came.")
        if isinstance(first, memoryview) or not first.HasField("header"):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "An upload begins with its header.")
        return first.header

    async def _take_upload(
        self,
        stream: TransferStream,
        assignment: Assignment,
        header: transfer_pb2.UploadHeader,
        messages: Messages,
        context: Context,
    ) -> transfer_pb2.UploadReceipt:
        signature, metrics = _checked(assignment, header)
        if self._uploads.is_taken(header):
            return transfer_pb2.UploadReceipt(duplicate=True)
        async with stream.limited(), self._turns:
            self._check_open(assignment)
            size = encoded_size(signature, _encoding(header))
            upload = await self._uploads.begin(_owner(assignment), header, size)
            try:
                await context.send_initial_metadata(())  # it is this upload's turn
                assignment.listener.on_phase(assignment, task_pb2.PHASE_UPLOADING)
                await self._receive(stream, assignment, header.offset, upload, messages)
            finally:
                await self._uploads.pause(upload)
                self._sweep_later()
        upload.check_size()
        stream.delivery = asyncio.create_task(self._deliver(assignment, header, upload, signature, metrics))
        await asyncio.shield(stream.delivery)
        return transfer_pb2.UploadReceipt()

    async def _receive(
        self,
        stream: TransferStream,
        assignment: Assignment,
        offset: int,
        upload: PartialUpload,
        messages: Messages,
    ) -> None:
        pace, known = self._pace_of(assignment), upload.received - offset  # an earlier stream may have brought more
        crumbs = Pace(SMALL_PER_SECOND)
        stream.start()
        async for message in messages:
            self._check_open(assignment)
            data = message if isinstance(message, memoryview) else memoryview(b"")
            await upload.take(data[known:] if known else data)
            known = max(0, known - len(data))
            stream.moved(len(data))
            await pace.keep(len(data))
            if len(data) < SMALL_BYTES:
                await crumbs.keep(1)

    async def _deliver(
        self,
        assignment: Assignment,
        header: transfer_pb2.UploadHeader,
        upload: PartialUpload,
        signature: Signature,
        metrics: Scalars,
    ) -> None:
        gate = self._gates.setdefault(assignment.task.run_id, asyncio.Semaphore(self._limits.updates_in_memory))
        try:
            async with gate:
                content, packed_size = await upload.whole(), None
                if header.encoding.packing:
                    packed_size, size = len(content), encoded_size(signature, _encoding(header))
                    content = await asyncio.to_thread(self._uploads.unpacked, content, size)
                update = Update(
                    content,
                    signature,
                    header.sha256,
                    header.num_examples,
                    metrics,
                    _encoding(header),
                    packed_size,
                    _work(header),
                )
                await assignment.listener.on_update(assignment, update)
        except BaseException:
            # Its file has lost its name: whoever asks is told that nothing is here.
            self._uploads.discard(header.task_id)
            raise
        self._uploads.complete(header.task_id, upload)

    @asynccontextmanager
    async def _stream_of(self, assignment: Assignment, direction: str) -> AsyncIterator[TransferStream]:
        """A client has one stream each way in a run: a connection that died without a word keeps no place from the next one."""
        key = assignment.client_id, assignment.task.run_id, direction
        if older := self._streams.get(key):
            older.end(f"Another {direction} of this client has begun.")
        stream = self._streams[key] = TransferStream(self._limits)
        try:
            async with self._places.setdefault(key, asyncio.Lock()):
                try:
                    yield stream
                finally:
                    if stream.delivery:
                        await asyncio.wait({stream.delivery})
                        stream.delivery.exception()  # whoever waits for it has hung up
        finally:
            if self._streams.get(key) is stream:
                del self._streams[key]

    def _note_refusal(self, assignment: Assignment, reason: str) -> None:
        names = {"client_id": assignment.client_id, "task_id": assignment.task.task_id}
        logger.warning("An upload was refused. %s", reason, extra=names)
        assignment.refusals += 1
        if assignment.refusals == MOST_REFUSALS:
            self._hub.fail(assignment, f"{MOST_REFUSALS} uploads were refused, the last one because: {reason}")

    async def _end(self, context: Context, assignment: Assignment, reason: str) -> NoReturn:
        logger.warning("%s", reason, extra={"client_id": assignment.client_id, "task_id": assignment.task.task_id})
        await refuse(context, grpc.StatusCode.ABORTED, reason)

    def _sweep_later(self) -> None:
        if self._sweep is None:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(self._limits.keep_seconds + 1, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        if self._uploads.sweep(self._hub.open_tasks()):
            self._sweep_later()

    def _pace_of(self, assignment: Assignment) -> Pace:
        return self._paces.setdefault(assignment.client_id, Pace(self._limits.most_rate))

    def _check_open(self, assignment: Assignment) -> None:
        if not self._is_open(assignment):
            raise self._hub.lateness(assignment.client_id, assignment.task_id) or UpdateRefused(CLOSED)

    def _is_open(self, assignment: Assignment) -> bool:
        return self._hub.assignment_of(assignment.client_id, assignment.task.task_id) is assignment

    async def _assignment(self, task_id: str, context: Context) -> Assignment:
        client, _ = await authenticate(self._registry, context, self._calls.of_stream)
        return await self._assignment_of(client, task_id, context)

    async def _assignment_of(self, client: ClientIdentity, task_id: str, context: Context) -> Assignment:
        assignment = self._hub.assignment_of(client.client_id, task_id)
        if assignment is None:
            if late := self._hub.lateness(client.client_id, task_id):
                await _refuse_late(context, late)
            await refuse(context, grpc.StatusCode.NOT_FOUND, "This client has no such task, or its round was closed.")
        log_context.bind(run_id=assignment.task.run_id, round=assignment.task.round)
        return assignment


async def _refuse_late(context: Context, late: TooLate) -> NoReturn:
    """The agent is told by how much, beside the words: being late is no error of its."""
    context.set_trailing_metadata(((limits.LATE_SECONDS, f"{late.seconds:.1f}"),))
    await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(late))


def _checked(assignment: Assignment, header: transfer_pb2.UploadHeader) -> tuple[Signature, Scalars]:
    """Raises `UpdateRefused` or `CodecError` for what can't become part of the run, before any of it is taken in."""
    if not assignment.uploads:
        raise UpdateRefused("This task asks for no update.")
    signature, metrics = signature_from_proto(header.signature), scalars_from_proto(header.metrics)
    if not re.fullmatch("[0-9a-f]{64}", header.sha256):
        raise UpdateRefused("The SHA-256 of an update is written as 64 hexadecimal digits.")
    encoding, wanted = _encoding(header), encoding_from_proto(assignment.task.encoding)
    if encoding != wanted:
        raise UpdateRefused(f"The update is declared to be {encoding}; the run wants {wanted}. Update fedagent.")
    if header.encoding.packing not in ("", assignment.task.encoding.packing):
        raise UpdateRefused(f"The update is packed ({header.encoding.packing!r}), which the run doesn't ask for.")
    if (work := _work(header)) and not 1 <= work.done <= work.planned <= limits.MAX_STEPS:
        raise UpdateRefused(f"The update is declared to be {work.done:,} of {work.planned:,} steps.")
    if work and work.is_partial and not assignment.task.finish_after_seconds:
        raise UpdateRefused(
            f"The training was ended after {work.done:,} of {work.planned:,} steps; the run's strategy takes whole work only."
        )
    if header.size > assignment.largest_update:
        raise UpdateRefused(
            f"The update has {header.size:,} bytes; a model of this run has at most {assignment.largest_update:,}."
        )
    return signature, metrics


def _encoding(header: transfer_pb2.UploadHeader) -> Encoding:
    return encoding_from_proto(header.encoding)


def _work(header: transfer_pb2.UploadHeader) -> Work | None:
    return Work(header.work.done, header.work.planned) if header.HasField("work") else None


def _owner(assignment: Assignment) -> str:
    return f"{assignment.client_id}|{assignment.task.run_id}"
