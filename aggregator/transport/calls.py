"""The calls that are under way, so that those of a client that is barred can be ended from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from grpc import aio

from aggregator.transport.identity import peer_certificate

Context = aio.ServicerContext[Any, Any]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs alone


@dataclass(slots=True, eq=False)
class _Call:
    task: asyncio.Task[Any]
    begun: datetime
    serial: str
    cut: str = ""
    """Why it was ended from outside."""


class OpenCalls(aio.ServerInterceptor):
    """Knows the streaming calls of each client; others are over before anyone could end them."""

    def __init__(self) -> None:
        self._calls: dict[str, set[_Call]] = {}

    def cut(self, client_id: str, reason: str, begun_before: datetime, keep: Collection[str] = ()) -> None:
        """End the client's calls, but for those with certificates of these serial numbers. Whoever waits for an answer is told the
        reason."""
        for call in list(self._calls.get(client_id, ())):
            if call.begun <= begun_before and call.serial not in keep and not call.cut:
                call.cut = reason
                call.task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(self._streaming(handler.stream_stream), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._streaming(handler.unary_stream), **codec)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._answering(handler.stream_unary), **codec)
        return handler  # type: ignore[no-any-return]

    def _streaming(self, behaviour: Callable[[Any, Context], Any]) -> Any:
        async def stream(request: Any, context: Context) -> None:
            with self._noted(context) as call:
                try:
                    await _written(behaviour(request, context), context)
                except asyncio.CancelledError:
                    await _end(call, context)
                    raise

        return stream

    def _answering(self, behaviour: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            with self._noted(context) as call:
                try:
                    return await behaviour(request, context)
                except asyncio.CancelledError:
                    await _end(call, context)
                    raise

        return answer

    @contextmanager
    def _noted(self, context: Context) -> Iterator[_Call]:
        task, certificate = asyncio.current_task(), peer_certificate(context)
        assert task
        client_id, serial = (certificate.client_id, certificate.serial) if certificate else ("", "")
        call = _Call(task, datetime.now(UTC), serial)
        self._calls.setdefault(client_id, set()).add(call)
        try:
            yield call
        finally:
            self._calls[client_id].discard(call)
            if not self._calls[client_id]:
                del self._calls[client_id]


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
