"""The Fleet service: one long stream an agent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from weakref import WeakValueDictionary

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from aggregator.hub import Hub, Session
from aggregator.ports import AgentInfo, AppOffer, ClientRegistry
from aggregator.transport.calls import OpenCalls
from aggregator.transport.connections import Allowance
from aggregator.transport.identity import authenticate, peer_certificate, refuse
from aggregator.transport.pace import Pace
from aggregator.transport.vitals import cards_of, has_control_characters, line, machine_of, vitals_of
from protos import limits
from protos.convert import scalars_from_proto, signature_from_proto
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, tensor_pb2
from protos.tensors import AUXILIARY, CodecError, Signature

logger = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
MESSAGE_BYTES = 4096
"""A longer message counts as several."""
AVAILABILITY_SECONDS = 0.2
"""After a change of availability nothing is read of the stream for so long: each is a write to the database."""

MAX_RUN_ID_LENGTH = 64

Context = aio.ServicerContext[fleet_pb2.AgentMessage, fleet_pb2.ServerMessage]


class HelloRefused(Exception):
    """The agent's first message won't do; the text is for its owner."""


class FleetServicer(fleet_pb2_grpc.FleetServicer):
    def __init__(self, hub: Hub, registry: ClientRegistry, calls: OpenCalls) -> None:
        self._hub = hub
        self._registry = registry
        self._calls = calls
        self._limits = calls.limits
        self._joins = 0
        self._connects = Allowance(calls.limits.connects_at_once, calls.limits.connect_seconds)

    async def Connect(  # type: ignore[override]  # written with `context`, so that a peer who doesn't read can be left
        self, request_iterator: AsyncIterator[fleet_pb2.AgentMessage], context: Context
    ) -> None:
        await self._refuse_too_many(context)
        with self._joining():
            client, certificate = await authenticate(self._registry, context)
        try:
            hello = await _receive_hello(request_iterator)
            info = _agent_info(hello)
        except HelloRefused as refusal:
            logger.warning("Agent refused: %s", refusal, extra={"client_id": client.client_id})
            await context.write(_goodbye(str(refusal)))
            return
        logger.info("Client connected", extra={"client_id": client.client_id, "agent_version": info.agent_version})
        with self._joining():
            session = await self._hub.join(client, info, certificate.not_after, set(hello.tasks_in_hand))
        reader = asyncio.create_task(self._read(session, request_iterator))
        try:
            await self._hub.tell_settled(session, _kept_runs(hello))
            with self._calls.streaming(client, certificate):
                await self._send(session, context)
        finally:
            reader.cancel()
            # The stream may be ending because its task is cancelled; what the hub has to write must still be written.
            await asyncio.shield(self._hub.leave(session))
            await asyncio.wait({reader})
            logger.info("Client disconnected", extra={"client_id": client.client_id})

    @contextmanager
    def _joining(self) -> Iterator[None]:
        """Work for the database, of which there is a line."""
        self._joins += 1
        try:
            yield
        finally:
            self._joins -= 1

    async def _refuse_too_many(self, context: Context) -> None:
        if self._joins >= self._limits.joins_at_once:
            await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "Many agents connect at this moment. Come again.")
        certificate = peer_certificate(context)
        if certificate and not self._connects.take(certificate.client_id):
            wait = self._limits.connect_seconds
            await refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"This client connects too often: once in {wait:g} s is enough.",
            )

    async def _send(self, session: Session, context: Context) -> None:
        message: fleet_pb2.ServerMessage | None = _welcome(session, self._hub.heartbeat_seconds)
        try:
            while message:
                if message.HasField("heartbeat_ack"):
                    session.fill(message.heartbeat_ack, time.time())
                async with asyncio.timeout(self._limits.read_seconds):
                    await context.write(message)
                message = await session.outbox.get()
        except TimeoutError:
            logger.warning("The agent reads nothing of its stream", extra={"client_id": session.client.client_id})

    async def _read(self, session: Session, messages: AsyncIterator[fleet_pb2.AgentMessage]) -> None:
        pace = Pace(self._limits.messages_per_second)
        try:
            async for message in messages:
                if message.HasField("hello"):
                    session.end("An agent says hello once a stream.", come_back=True)
                    return
                self._receive(session, message)
                await pace.keep(1 + message.ByteSize() // MESSAGE_BYTES)
                if message.HasField("availability"):
                    await self._hub.change_availability(session, _reason(message.availability.unavailable))
                    await asyncio.sleep(AVAILABILITY_SECONDS)
        except DecodeError as error:
            logger.warning("A message can't be read: %s", error, extra={"client_id": session.client.client_id})
        except Exception:
            logger.exception("The stream broke", extra={"client_id": session.client.client_id})
        finally:
            session.outbox.put_nowait(None)

    def _receive(self, session: Session, message: fleet_pb2.AgentMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                self._receive_heartbeat(session, message.heartbeat)
                return
            case "progress":
                message.progress.message = line(message.progress.message, limits.MAX_REASON_LENGTH)
                self._hub.receive_progress(session, message.progress)
            case "result":
                message.result.reason = line(message.result.reason, limits.MAX_REASON_LENGTH)
                self._hub.receive_result(session, message.result)
        self._hub.hear(session)

    def _receive_heartbeat(self, session: Session, beat: fleet_pb2.Heartbeat) -> None:
        received_at = time.time()
        self._hub.hear(session, vitals_of(beat, received_at), cards_of(beat.cards) if beat.HasField("cards") else None)
        session.left = beat.leaving
        session.acknowledge(received_at)


async def _receive_hello(messages: AsyncIterator[fleet_pb2.AgentMessage]) -> fleet_pb2.Hello:
    try:
        message = await asyncio.wait_for(anext(messages), HELLO_SECONDS)
    except (TimeoutError, StopAsyncIteration):
        raise HelloRefused(f"No first message arrived within {HELLO_SECONDS:g} s.") from None
    if not message.HasField("hello"):
        raise HelloRefused("The first message must be a hello.")
    if message.hello.protocol_major != limits.PROTOCOL_MAJOR:
        raise HelloRefused(
            f"The agent speaks protocol {message.hello.protocol_major}, this server {limits.PROTOCOL_MAJOR}. "
            "Install the agent's version that belongs to this server."
        )
    return message.hello


def _agent_info(hello: fleet_pb2.Hello) -> AgentInfo:
    if len(hello.apps) > limits.MAX_APPS:
        raise HelloRefused(f"An agent offers at most {limits.MAX_APPS} apps, not {len(hello.apps)}.")
    if (tensors := sum(len(app.signature.tensors) for app in hello.apps)) > limits.MAX_OFFERED_TENSORS:
        raise HelloRefused(
            f"The apps of an agent have at most {limits.MAX_OFFERED_TENSORS:,} tensors, not {tensors:,}."
        )
    try:
        apps = [_app_offer(app) for app in hello.apps]
        properties = scalars_from_proto(hello.properties)
    except CodecError as error:
        raise HelloRefused(f"The agent's first message can't be read: {error}") from error
    return AgentInfo(
        line(hello.agent_version, 32),
        line(hello.platform, 120),
        apps,
        properties,
        min(hello.protocol_minor, limits.PROTOCOL_MINOR),
        _reason(hello.unavailable),
        min(max(1, hello.max_tasks), limits.MAX_TASKS),
        machine_of(hello.machine),
        cards_of(hello.cards),
    )


def _kept_runs(hello: fleet_pb2.Hello) -> set[str]:
    return {run_id for run_id in hello.kept_runs[: limits.MAX_KEPT_RUNS] if len(run_id) <= MAX_RUN_ID_LENGTH}


def _reason(text: str) -> str:
    return line(text, limits.MAX_UNAVAILABLE_LENGTH)


def _app_offer(app: fleet_pb2.AppOffer) -> AppOffer:
    if not 1 <= len(app.name) <= 63 or not 1 <= len(app.version) <= 32:
        raise HelloRefused("An app's name has 1 to 63 characters, its version 1 to 32.")
    if any(tensor.name.startswith(AUXILIARY) for tensor in app.signature.tensors):
        raise HelloRefused(f"A tensor of app {app.name!r} has a reserved name: it begins with {AUXILIARY}.")
    if len(app.columns) > limits.MAX_COLUMNS:
        raise HelloRefused(f"An app opens at most {limits.MAX_COLUMNS} columns, not {len(app.columns):,}.")
    if not all(1 <= len(column) <= limits.MAX_COLUMN_NAME_LENGTH for column in app.columns):
        raise HelloRefused(f"A column's name has 1 to {limits.MAX_COLUMN_NAME_LENGTH} characters.")
    if any(has_control_characters(name) for name in (app.name, app.version, *app.columns)):
        raise HelloRefused("The name or version of an app, or the name of a column, holds a control character.")
    return AppOffer(
        app.name, app.version, line(app.framework, 32), _shared_signature(app.signature), tuple(app.columns)
    )


_signatures: WeakValueDictionary[bytes, Signature] = WeakValueDictionary()


def _shared_signature(message: tensor_pb2.ModelSignature) -> Signature:
    """One for all agents that offer the same: a thousand are compared whenever somebody comes or goes."""
    key = sha256(message.SerializeToString(deterministic=True)).digest()
    signature = _signatures.get(key) or signature_from_proto(message)
    return _signatures.setdefault(key, signature)


def _welcome(session: Session, heartbeat_seconds: float) -> fleet_pb2.ServerMessage:
    welcome = fleet_pb2.Welcome(
        client_id=session.client.client_id,
        client_name=session.client.name,
        heartbeat_seconds=heartbeat_seconds,
        protocol_major=limits.PROTOCOL_MAJOR,
        protocol_minor=limits.PROTOCOL_MINOR,
    )
    return fleet_pb2.ServerMessage(welcome=welcome)


def _goodbye(reason: str) -> fleet_pb2.ServerMessage:
    return fleet_pb2.ServerMessage(goodbye=fleet_pb2.Goodbye(reason=reason, reconnect_after_seconds=-1.0))
