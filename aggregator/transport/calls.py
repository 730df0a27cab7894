"""The calls that are under way, so that those of a client that is barred can be ended from outside; and how each ended."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from aggregator import log_context
from aggregator.ports import ClientIdentity
from aggregator.transport.connections import Allowance, ConnectionLimits
from aggregator.transport.identity import PeerCertificate, peer_certificate, refuse

logger = logging.getLogger(__name__)

Context = aio.ServicerContext[Any, Any]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs alone

CallObserver = Callable[[str, str, float], None]
"""Told of each call that ended: its method, the name of its status code, and the seconds that it took."""
UNKNOWN_METHOD = "other"
"""Whatever else a peer asks for: names that peers invent are told to nobody."""
_PACKAGE = "/fedui.v1."
_CODES = {code.value[0]: code for code in grpc.StatusCode}

COMPLAINT_SECONDS = 60.0
"""A client that asks too much is logged so often: a flood fills no log."""


@dataclass(slots=True, eq=False)
class _Call:
    task: asyncio.Task[Any]
    begun: datetime
    serial: str
    cut: str = ""
    """Why it was ended from outside."""


class OpenCalls(aio.ServerInterceptor):
    """Knows the calls of each client, refuses those beyond its share, and tells none of what goes wrong in here."""

    def __init__(self, limits: ConnectionLimits | None = None, observe: CallObserver | None = None) -> None:
        self.limits = limits or ConnectionLimits()
        self._observe = observe or (lambda method, code, seconds: None)
        self._calls: dict[str, set[_Call]] = {}
        self._streams: dict[PeerCertificate, ClientIdentity] = {}
        self._complaints = Allowance(1, COMPLAINT_SECONDS)

    def cut(self, client_id: str, reason: str, begun_before: datetime, keep: Collection[str] = ()) -> None:
        """End the client's calls, but for those with certificates of these serial numbers. Whoever waits for an answer is told the
        reason. A later call with a certificate that is ended here was let in because of its stream (`of_stream`)."""
        calls = self._calls.get(client_id, set())
        serials = {call.serial for call in calls if call.begun <= begun_before}.difference(keep)
        for certificate in [c for c in self._streams if c.client_id == client_id and c.serial in serials]:
            del self._streams[certificate]
        for call in calls:
            if call.serial in serials and not call.cut:
                call.cut = reason
                call.task.cancel()

    @contextmanager
    def streaming(self, client: ClientIdentity, certificate: PeerCertificate) -> Iterator[None]:
        """While its stream is open, the client's other calls with the same certificate needn't be looked up."""
        self._streams[certificate] = client
        try:
            yield
        finally:
            if self._streams.get(certificate) is client:
                del self._streams[certificate]

    def of_stream(self, certificate: PeerCertificate) -> ClientIdentity | None:
        """Who has a stream with this certificate: `cut` ends both when the client is barred."""
        return self._streams.get(certificate)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            self._observe(UNKNOWN_METHOD, grpc.StatusCode.UNIMPLEMENTED.name, 0.0)
            return None
        method = handler_call_details.method.removeprefix(_PACKAGE)
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                _reading(self._streaming(handler.stream_stream, method)), **codec
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream, method), **codec)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _reading(self._answering(handler.stream_unary, method)), **codec
            )
        return grpc.unary_unary_rpc_method_handler(self._answering(handler.unary_unary, method), **codec)

    def _streaming(self, behaviour: Callable[[Any, Context], Any], method: str) -> Any:
        async def stream(request: Any, context: Context) -> None:
            async with self._observed(context, method), self._noted(context, method):
                await _written(behaviour(request, context), context)

        return stream

    def _answering(self, behaviour: Callable[[Any, Context], Awaitable[Any]], method: str) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            async with self._observed(context, method), self._noted(context, method):
                return await behaviour(request, context)

        return answer

    @asynccontextmanager
    async def _observed(self, context: Context, method: str) -> AsyncIterator[None]:
        begun, code = time.perf_counter(), grpc.StatusCode.OK
        try:
            yield
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except Exception:
            code = _code(context)
            raise
        finally:
            self._observe(method, code.name, time.perf_counter() - begun)

    @asynccontextmanager
    async def _noted(self, context: Context, method: str) -> AsyncIterator[None]:
        task, certificate = asyncio.current_task(), peer_certificate(context)
        assert task
        client_id, serial = (certificate.client_id, certificate.serial) if certificate else ("", "")
        log_context.bind(rpc=method.rpartition("/")[2], client_id=client_id)
        call = _Call(task, datetime.now(UTC), serial)
        await self._refuse_beyond_share(client_id, context)
        self._calls.setdefault(client_id, set()).add(call)
        try:
            yield
        except asyncio.CancelledError:
            await _end(call, context)
            raise
        except aio.BaseError as error:  # refused, or the peer has gone
            _forget_locals(error)
            raise
        except DecodeError as error:
            logger.warning("A message can't be read: %s", error, extra={"client_id": client_id})
            await refuse(
                context, grpc.StatusCode.INVALID_ARGUMENT, "The message can't be read: it isn't of FedUI's protocol."
            )
        except Exception:
            logger.exception("A call failed", extra={"client_id": client_id})
            await refuse(context, grpc.StatusCode.INTERNAL, "The server failed. Its log says why.")
        finally:
            self._calls[client_id].discard(call)
            if not self._calls[client_id]:
                del self._calls[client_id]

    async def _refuse_beyond_share(self, client_id: str, context: Context) -> None:
        if len(self._calls.get(client_id, ())) < self.limits.calls_at_once:
            return
        reason = f"A client may have {self.limits.calls_at_once} calls open at a time."
        if self._complaints.take(client_id):
            logger.warning("Calls refused: %s", reason, extra={"client_id": client_id})
        await refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, reason)


def _code(context: Context) -> grpc.StatusCode:
    """With which a call was refused, or broken off by a peer that has gone."""
    if context.cancelled():
        return grpc.StatusCode.CANCELLED
    code: Any = context.code()  # a number or gRPC's own, by how it was set
    return _CODES.get(getattr(code, "value", (code,))[0], grpc.StatusCode.UNKNOWN)


async def _written(answer: AsyncIterator[Any] | Awaitable[None], context: Context) -> None:
    """What a handler yields is written here: a call that waits for a peer who doesn't read must hear that it is cut."""
    if isinstance(answer, AsyncIterator):
        async for message in answer:
            await context.write(message)
    else:  # a handler that writes by itself
        await answer


async def _end(call: _Call, context: Context) -> None:
    """Returns if the call was cancelled by its peer or with the server."""
    if call.cut:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, call.cut)


def _reading(behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
    """gRPC's reader of a stream refers to itself: one that isn't closed keeps the newest message until the collector comes by."""

    async def read(request: AsyncIterable[Any], context: Context) -> Any:
        generator: Any = aiter(request)
        async with aclosing(generator) as messages:
            return await behaviour(messages, context)

    return read


def _forget_locals(error: BaseException | None) -> None:
    """gRPC's state of a call and the refusal that ended it hold each other until the collector comes by: of the request, which may
    be large, nothing may be left in the frames between them."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
