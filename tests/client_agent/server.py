"""A server for tests: real gRPC over mutual TLS, with a script's will instead of an engine."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message

from protos import limits, tensors
from protos.convert import ScalarValue, encoding_to_proto, scalars_to_proto, signature_to_proto
from protos.encodings import PLAIN, Encoding
from protos.fedui.v1 import (
    fleet_pb2,
    fleet_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    task_pb2,
    transfer_pb2,
    transfer_pb2_grpc,
)
from protos.packing import Packing, pack
from protos.tensors import Parameters, Signature
from tests.client_agent.pki import Authority

T = TypeVar("T")

FleetContext = grpc.aio.ServicerContext[fleet_pb2.AgentMessage, fleet_pb2.ServerMessage]
DownloadContext = grpc.aio.ServicerContext[transfer_pb2.DownloadRequest, transfer_pb2.Chunk]
StatusContext = grpc.aio.ServicerContext[transfer_pb2.GetUploadRequest, transfer_pb2.UploadStatus]
IdentityContext = grpc.aio.ServicerContext[Any, Any]
UploadContext = grpc.aio.ServicerContext[transfer_pb2.UploadMessage, transfer_pb2.UploadReceipt]


class ScriptedServer(
    fleet_pb2_grpc.FleetServicer, transfer_pb2_grpc.TransferServicer, identity_pb2_grpc.IdentityServicer
):
    """Records what the agent says. Its record survives `stop` and `start`, as a database would."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.port = 0
        self.heartbeat_seconds = 0.05
        self.acknowledges = True
        self.holds_heartbeats = 0.0
        self.greeting: fleet_pb2.Goodbye | None = None
        self.refusal: grpc.StatusCode | None = None
        """Of streams, before a word."""
        self.refused_streams: list[grpc.StatusCode] = []
        self.hellos: list[fleet_pb2.Hello] = []
        self.heartbeats: list[fleet_pb2.Heartbeat] = []
        self.progress: list[task_pb2.Progress] = []
        self.results: list[task_pb2.TaskResult] = []
        self.availabilities: list[str] = []
        self.headers: list[transfer_pb2.UploadHeader] = []
        self.asked_what_is_there: list[str] = []
        """Ids of the tasks of whose updates an agent has asked it."""
        self.download_offsets: list[int] = []
        self.uploads: dict[str, bytearray] = {}
        self.models: dict[str, bytes] = {}
        self.packed_models: dict[str, bytes] = {}
        self.packed_downloads = 0
        self.break_upload_after: int | None = None
        self.break_download_after: int | None = None
        self.break_download_again = False
        self.refuse_uploads = False
        self.renews = True
        self.renewal_refusals = 0
        self.renewal_bundle = authority.pem
        self.renewed_by: list[int] = []
        self.confirmed_by: list[int] = []
        self.connected_by: list[int] = []
        self.uploaded_by: list[int] = []
        """Serials of the certificates with which the agent did so."""
        self.turn: asyncio.Event | None = None
        """Where set, uploads are told to wait for it."""
        self._pushed: asyncio.Queue[fleet_pb2.ServerMessage] = asyncio.Queue()
        self._heard = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        fleet_pb2_grpc.add_FleetServicer_to_server(self, self._server)
        transfer_pb2_grpc.add_TransferServicer_to_server(self, self._server)
        if self.renews:
            identity_pb2_grpc.add_IdentityServicer_to_server(self, self._server)
        credentials = grpc.ssl_server_credentials(
            [self.authority.server_credentials()], self.authority.pem, require_client_auth=True
        )
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self._server.start()

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(grace=None)
            self._server = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # --- what a test does ---

    def push(self, **body: Message) -> None:
        self._pushed.put_nowait(fleet_pb2.ServerMessage(**body))  # type: ignore[arg-type]

    def push_task(
        self,
        task_id: str,
        kind: task_pb2.TaskKind.ValueType,
        model: Parameters | None = None,
        config: Mapping[str, ScalarValue] | None = None,
        app: str = "toy",
        attempt: int = 1,
        encoding: Encoding = PLAIN,
        packing: Packing = "none",
        round_number: int = 1,
        counted_round: int = 0,
        finish_after_seconds: float = 0.0,
        version: str = "1.0",
        **fields: Message,
    ) -> task_pb2.Task:
        task = task_pb2.Task(
            task_id=task_id, run_id="r", round=round_number, attempt=attempt, kind=kind, app=app, app_version=version,
            config=scalars_to_proto(config or {}), deadline_seconds=60, encoding=encoding_to_proto(encoding, packing),
            rounding_seed=5, counted_round=counted_round, finish_after_seconds=finish_after_seconds,
        )  # fmt: skip
        if model is not None:
            content = bytes(tensors.encode(model))
            self.models[task_id] = content
            task.model.sha256 = hashlib.sha256(content).hexdigest()
            task.model.size = len(content)
            task.model.signature.CopyFrom(signature_to_proto(Signature.of(model)))
            if packing != "none":
                packed = self.packed_models[task_id] = bytes(pack(content) or b"")
                task.model.packed.packing, task.model.packed.size = packing, len(packed)
                task.model.packed.sha256 = hashlib.sha256(packed).hexdigest()
        for name, value in fields.items():
            getattr(task, name).CopyFrom(value)
        self.push(task=task)
        return task

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what the agent has said makes `condition` true."""
        async with asyncio.timeout(20), self._heard:
            await self._heard.wait_for(condition)

    async def result(self, task_id: str) -> task_pb2.TaskResult:
        await self.until(lambda: any(result.task_id == task_id for result in self.results))
        return next(result for result in self.results if result.task_id == task_id)

    # --- the services ---

    async def Connect(  # type: ignore[override]
        self, messages: AsyncIterator[fleet_pb2.AgentMessage], context: FleetContext
    ) -> None:
        if self.refusal:
            await self._record(self.refused_streams, self.refusal)
            await context.abort(self.refusal, "Ask the federation's operator.")
        first = await anext(messages)
        self.connected_by.append(_serial(context))
        await self._record(self.hellos, first.hello)
        if self.greeting:
            await context.write(fleet_pb2.ServerMessage(goodbye=self.greeting))
            return
        welcome = fleet_pb2.Welcome(client_id="c-1", client_name="site-1", heartbeat_seconds=self.heartbeat_seconds)
        await context.write(fleet_pb2.ServerMessage(welcome=welcome))
        listening = asyncio.create_task(self._listen(messages))
        try:
            while True:
                pushed = await self._pushed.get()
                await context.write(pushed)
                if pushed.HasField("goodbye"):
                    return
        finally:
            listening.cancel()

    async def Download(
        self, request: transfer_pb2.DownloadRequest, context: DownloadContext
    ) -> AsyncIterator[transfer_pb2.Chunk]:
        content = (self.packed_models if request.packing else self.models)[request.task_id]
        await self._record(self.download_offsets, request.offset)
        self.packed_downloads += bool(request.packing)
        for start in range(request.offset, len(content), limits.CHUNK_BYTES):
            if self.break_download_after is not None and start >= self.break_download_after:
                if not self.break_download_again:
                    self.break_download_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
            yield transfer_pb2.Chunk(data=content[start : start + limits.CHUNK_BYTES])

    async def GetUpload(
        self, request: transfer_pb2.GetUploadRequest, context: StatusContext
    ) -> transfer_pb2.UploadStatus:
        if self.refuse_uploads:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The round is closed.")
        self.asked_what_is_there.append(request.task_id)
        received = self.uploads.get(request.task_id, bytearray())
        size = next((h.size for h in self.headers if h.task_id == request.task_id), -1)
        return transfer_pb2.UploadStatus(
            received=len(received), complete=len(received) == size, announces_turn=self.turn is not None
        )

    async def Upload(
        self, messages: AsyncIterator[transfer_pb2.UploadMessage], context: UploadContext
    ) -> transfer_pb2.UploadReceipt:
        header = (await anext(messages)).header
        self.uploaded_by.append(_serial(context))
        await self._record(self.headers, header)
        content = self.uploads.setdefault(header.task_id, bytearray())
        if self.turn:
            await self.turn.wait()
            await context.send_initial_metadata(())
        assert len(content) == header.offset
        async for message in messages:
            content += message.chunk.data
            if self.break_upload_after is not None and len(content) >= self.break_upload_after:
                self.break_upload_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
        assert hashlib.sha256(content).hexdigest() == header.sha256
        return transfer_pb2.UploadReceipt()

    async def Renew(self, request: identity_pb2.RenewRequest, context: IdentityContext) -> identity_pb2.RenewResponse:
        if self.renewal_refusals:
            self.renewal_refusals -= 1
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "This client is suspended.")
        public_key = x509.load_pem_x509_csr(request.csr_pem.encode()).public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        certificate = self.authority.certify(public_key, "site-1")
        await self._record(self.renewed_by, _serial(context))
        return identity_pb2.RenewResponse(certificate_pem=certificate.decode(), ca_pem=self.renewal_bundle.decode())

    async def Confirm(
        self, request: identity_pb2.ConfirmRequest, context: IdentityContext
    ) -> identity_pb2.ConfirmResponse:
        await self._record(self.confirmed_by, _serial(context))
        return identity_pb2.ConfirmResponse()

    async def _listen(self, messages: AsyncIterator[fleet_pb2.AgentMessage]) -> None:
        async for message in messages:
            match message.WhichOneof("body"):
                case "heartbeat":
                    await self._record(self.heartbeats, message.heartbeat)
                    if self.acknowledges:
                        # As if the answer had been held up: that is no time of the network.
                        ack = fleet_pb2.HeartbeatAck(received_at=1000.0, answered_at=1000.0 + self.holds_heartbeats)
                        self._pushed.put_nowait(fleet_pb2.ServerMessage(heartbeat_ack=ack))
                case "progress":
                    await self._record(self.progress, message.progress)
                case "result":
                    await self._record(self.results, message.result)
                case "availability":
                    await self._record(self.availabilities, message.availability.unavailable)

    async def _record(self, record: list[T], entry: T) -> None:
        async with self._heard:
            record.append(entry)
            self._heard.notify_all()


def _serial(context: grpc.aio.ServicerContext[Any, Any]) -> int:
    pem = next(iter(context.auth_context()["x509_pem_cert"]))
    return x509.load_pem_x509_certificate(bytes(pem)).serial_number
