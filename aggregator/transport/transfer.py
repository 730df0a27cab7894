"""The Transfer service: models down, updates up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from aggregator.hub import Assignment, Hub, Update, UpdateRefused
from aggregator.ports import ClientRegistry
from aggregator.transport.identity import authenticate, refuse
from aggregator.transport.uploads import PartialUpload, Uploads
from protos import limits
from protos.convert import encoding_from_proto, scalars_from_proto, signature_from_proto
from protos.encodings import encoded_size
from protos.fedui.v1 import task_pb2, transfer_pb2, transfer_pb2_grpc
from protos.tensors import CodecError

logger = logging.getLogger(__name__)

Context = aio.ServicerContext[Any, Any]


class TransferServicer(transfer_pb2_grpc.TransferServicer):
    def __init__(self, hub: Hub, registry: ClientRegistry) -> None:
        self._hub = hub
        self._registry = registry
        self._uploads = Uploads()

    async def Download(
        self, request: transfer_pb2.DownloadRequest, context: Context
    ) -> AsyncIterator[transfer_pb2.Chunk]:
        assignment = await self._assignment(request.task_id, context)
        model = memoryview(assignment.model)
        if len(model) < assignment.task.model.size:
            await refuse(
                context, grpc.StatusCode.NOT_FOUND, "The model isn't sent any more: the task's update is here."
            )
        if request.offset > len(model):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"The model has {len(model):,} bytes.")
        for start in range(request.offset, len(model), limits.CHUNK_BYTES):
            chunk = bytes(model[start : start + limits.CHUNK_BYTES])
            assignment.bytes_down += len(chunk)
            yield transfer_pb2.Chunk(data=chunk)

    async def GetUpload(self, request: transfer_pb2.GetUploadRequest, context: Context) -> transfer_pb2.UploadStatus:
        await self._assignment(request.task_id, context)
        upload = self._uploads.get(request.task_id)
        received = len(upload.buffer) if upload and not upload.complete else 0
        return transfer_pb2.UploadStatus(received=received, complete=bool(upload and upload.complete))

    async def Upload(
        self, request_iterator: AsyncIterator[transfer_pb2.UploadMessage], context: Context
    ) -> transfer_pb2.UploadReceipt:
        first = await anext(request_iterator, transfer_pb2.UploadMessage())
        if not first.HasField("header"):
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "An upload begins with its header.")
        assignment = await self._assignment(first.header.task_id, context)
        try:
            return await self._take_upload(assignment, first.header, request_iterator)
        except (UpdateRefused, CodecError) as refusal:
            self._uploads.discard(first.header.task_id)
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(refusal))

    async def _take_upload(
        self,
        assignment: Assignment,
        header: transfer_pb2.UploadHeader,
        messages: AsyncIterator[transfer_pb2.UploadMessage],
    ) -> transfer_pb2.UploadReceipt:
        if not assignment.uploads:
            raise UpdateRefused("This task asks for no update.")
        signature, metrics = signature_from_proto(header.signature), scalars_from_proto(header.metrics)
        encoding, wanted = encoding_from_proto(header.encoding), encoding_from_proto(assignment.task.encoding)
        if encoding != wanted:
            raise UpdateRefused(f"The update is declared to be {encoding}; the run wants {wanted}. Update fedagent.")
        if header.size > assignment.largest_update:
            raise UpdateRefused(
                f"The update has {header.size:,} bytes; a model of this run has at most {assignment.largest_update:,}."
            )
        upload = self._uploads.begin(header, encoded_size(signature, encoding))
        if upload.complete:
            return transfer_pb2.UploadReceipt(duplicate=True)
        assignment.listener.on_phase(assignment, task_pb2.PHASE_UPLOADING)
        async for message in messages:
            upload.append(message.chunk.data)
        await asyncio.to_thread(upload.check)
        update = Update(upload.buffer, signature, header.sha256, header.num_examples, metrics, encoding)
        await assignment.listener.on_update(assignment, update)
        self._complete(upload)
        return transfer_pb2.UploadReceipt()

    def _complete(self, upload: PartialUpload) -> None:
        upload.complete = True
        upload.buffer = bytearray()  # the accumulator has it; what stays is the knowledge that it came
        self._uploads.keep_only(self._hub.open_tasks())

    async def _assignment(self, task_id: str, context: Context) -> Assignment:
        client, _ = await authenticate(self._registry, context)
        assignment = self._hub.assignment_of(client.client_id, task_id)
        if assignment is None:
            await refuse(context, grpc.StatusCode.NOT_FOUND, "This client has no such task, or its round was closed.")
        return assignment
