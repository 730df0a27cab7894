"""The stream to the server: kept up, and taken up again for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from client_agent import backoff
from client_agent.channel import open_channel
from client_agent.departures import Departures
from client_agent.errors import ConfigurationError, Dismissed
from client_agent.identity import Identities, Identity
from client_agent.outbox import Outbox
from client_agent.servers import Servers
from client_agent.state import StateFile
from client_agent.tasks import Tasks
from client_agent.vitals import Vitals
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc

log = logging.getLogger(__name__)

GREETING_SECONDS = 30.0
"""How long the server may take to answer the first message."""
GREETING_ELSEWHERE_SECONDS = 10.0
"""As above, where another address may be the right one."""
LONGEST_HEARTBEAT = 3600.0
SILENT_HEARTBEATS = 3
"""After so many intervals without a word the server is taken for lost."""
FAREWELL_SECONDS = 1.0
"""How long the server may take to hear that the agent ends."""

Stream = grpc.aio.StreamStreamCall[fleet_pb2.AgentMessage, fleet_pb2.ServerMessage]


class _StreamEnded(Exception):
    """`pause` is the server's wish for how long to stay away; None leaves it to the back-off."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Connection:
    """Connects, listens, beats; `run` ends only by an error that no retry can mend."""

    def __init__(
        self,
        identities: Identities,
        hello: Callable[[], fleet_pb2.Hello],
        tasks: Tasks,
        outbox: Outbox,
        state: StateFile,
        departures: Departures,
        vitals: Vitals,
        servers: Servers,
        max_delay: float = backoff.MAX_SECONDS,
    ) -> None:
        self._identities = identities
        self._servers = servers
        self._hello = hello
        self._tasks = tasks
        self._outbox = outbox
        self._state = state
        self._departures = departures
        self._vitals = vitals
        self._cards = fleet_pb2.DataCards()
        """Of all apps, as they are; what the owner publishes of them leaves."""
        self._max_delay = max_delay
        self._delays = backoff.delays(max_delay)

    async def run(self) -> None:
        """Raises `Dismissed` after a goodbye for good, and `CertificateExpired`."""
        while True:
            self._identities.turn_to(self._servers.address)
            identity = self._identities.current
            identity.raise_if_expired()
            ended = await self._converse(identity)
            self._state.disconnected(str(ended))
            delay = self._pause_after(ended)
            log.warning("Not connected to %s (%s); next attempt in %.1f s", identity.grpc_address, ended, delay)
            await asyncio.sleep(delay)

    def _pause_after(self, ended: _StreamEnded) -> float:
        """Where there are several addresses, all are tried before a longer pause."""
        more = self._servers.try_next()
        if ended.pause is not None:
            return ended.pause
        return random.uniform(0, min(backoff.FIRST_SECONDS, self._max_delay)) if more else next(self._delays)

    async def _converse(self, identity: Identity) -> _StreamEnded:
        """One stream from its beginning to its end, and why it ended."""
        try:
            async with open_channel(identity) as channel:
                hello = self._hello()
                self._cards = fleet_pb2.DataCards(cards=hello.cards.cards)
                greeting = await self._departures.hello(hello)  # before there is a stream, which may end meanwhile
                stream: Stream = fleet_pb2_grpc.FleetStub(channel).Connect()
                welcome = await self._greet(stream, greeting)
                await self._serve(stream, welcome.heartbeat_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and identity is self._identities.current:
                raise Dismissed(f"The server refuses this client: {error.details()}") from error
            return _StreamEnded(f"{error.code().name}: {error.details()}")
        except TimeoutError:
            return _StreamEnded("the server fell silent")
        except _StreamEnded as ended:
            return ended
        return _StreamEnded("the server ended the stream")

    async def _greet(self, stream: Stream, greeting: fleet_pb2.AgentMessage) -> fleet_pb2.Welcome:
        async with asyncio.timeout(GREETING_ELSEWHERE_SECONDS if len(self._servers.all) > 1 else GREETING_SECONDS):
            await stream.write(greeting)
            answer = await _read(stream)
        if not answer.HasField("welcome"):
            self._obey(answer)
            raise _StreamEnded("the server didn't answer with a welcome")
        if not 0 < answer.welcome.heartbeat_seconds <= LONGEST_HEARTBEAT:
            raise _StreamEnded(f"the server wants a heartbeat each {answer.welcome.heartbeat_seconds:g} s")
        self._delays = backoff.delays(self._max_delay)
        self._servers.answered()
        self._state.connected()
        self._tasks.server_is_back()
        log.info("Connected to %s as %s", self._identities.current.grpc_address, answer.welcome.client_name)
        return answer.welcome

    async def _serve(self, stream: Stream, interval: float) -> None:
        """Listen, with sending and beating beside it. What breaks the sending breaks the listening too."""
        self._vitals.begin_stream()
        helpers = [asyncio.create_task(self._send(stream)), asyncio.create_task(self._beat(interval))]
        reading = asyncio.create_task(_read(stream))
        try:
            while True:
                # Not by a timeout around the reading: a reading that is cancelled ends the whole stream.
                if not (await asyncio.wait({reading}, timeout=SILENT_HEARTBEATS * interval))[0]:
                    raise TimeoutError
                self._obey(reading.result())
                reading = asyncio.create_task(_read(stream))
        except asyncio.CancelledError:
            await _end(helpers)
            await self._say_farewell(stream, reading)
            raise
        finally:
            await _end([*helpers, reading])

    async def _say_farewell(self, stream: Stream, reading: asyncio.Task[fleet_pb2.ServerMessage]) -> None:
        """Tell the server that this agent ends, so that it need not wait for it."""
        with contextlib.suppress(
            grpc.aio.AioRpcError, asyncio.InvalidStateError, TimeoutError, _StreamEnded, ConfigurationError
        ):
            async with asyncio.timeout(FAREWELL_SECONDS):
                farewell = fleet_pb2.AgentMessage(heartbeat=self._vitals.heartbeat())
                farewell.heartbeat.leaving = True
                await stream.write(await self._departures.message(farewell))
                await stream.done_writing()
                while await reading:
                    reading = asyncio.ensure_future(_read(stream))

    async def _send(self, stream: Stream) -> None:
        while True:
            message = await self._outbox.take()
            if message.HasField("heartbeat"):
                message.heartbeat.sent_at = time.time()
                self._vitals.sent()
            try:
                message = await self._departures.message(message)
                await stream.write(message)
            except BaseException:
                self._outbox.put_back(message)
                raise

    async def _beat(self, interval: float) -> None:
        while True:
            beat = self._vitals.heartbeat()
            beat.cards.CopyFrom(self._cards)
            self._outbox.put_heartbeat(beat)
            await asyncio.sleep(interval)

    def _obey(self, message: fleet_pb2.ServerMessage) -> None:
        match message.WhichOneof("body"):
            case "task":
                self._departures.expect(message.task)
                self._tasks.accept(message.task)
            case "heartbeat_ack":
                self._vitals.answered(message.heartbeat_ack)
            case "cancel":
                self._tasks.cancel(message.cancel.task_id, message.cancel.reason, finish=message.cancel.finish)
            case "servers":
                self._servers.learn(message.servers.addresses)
            case "settled":
                self._tasks.settle(message.settled)
            case "goodbye":
                _leave(message.goodbye)


async def _end(helpers: Sequence[asyncio.Task[Any]]) -> None:
    for helper in helpers:
        helper.cancel()
    await asyncio.gather(*helpers, return_exceptions=True)


def _leave(goodbye: fleet_pb2.Goodbye) -> None:
    if goodbye.reconnect_after_seconds < 0:
        raise Dismissed(
            f"The server said goodbye: {goodbye.reason} Ask the federation's operator before starting again."
        )
    # All agents hear this at the same moment, and must not all come back in the same one.
    wished = max(
        backoff.FIRST_SECONDS, goodbye.reconnect_after_seconds
    )  # in this order: what is no number is the least
    seconds = min(backoff.MAX_SECONDS, wished)
    raise _StreamEnded(goodbye.reason, pause=seconds * random.uniform(1, 1.5))


async def _read(stream: Stream) -> fleet_pb2.ServerMessage:
    message = await stream.read()
    if isinstance(message, fleet_pb2.ServerMessage):
        return message
    raise _StreamEnded("the server ended the stream")
