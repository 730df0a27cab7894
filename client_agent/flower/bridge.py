"""The bridge: Flower's server as Flower clients see it, and an enrolled agent for each of them as FedUI sees it.

An identity is one client of the federation, and so is a Flower client: the bridge has as many places for Flower clients as
it was given identities. A Flower client takes a free place when it joins and keeps it until it leaves; in between, and only then,
the identity's agent is connected.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from client_agent import agent, backoff
from client_agent.errors import AgentError, ConfigurationError
from client_agent.flower import messages
from client_agent.flower.messages import Answer
from client_agent.flower.offer import Offer
from client_agent.flower.stream import MAX_MESSAGE_BYTES, FlowerClient, FlowerClientLeft, FlowerStream
from client_agent.identity import Home
from client_agent.owner import Owner
from client_agent.shared_models import SharedModels
from protos.flower.transport_pb2 import ServerMessage

log = logging.getLogger(__name__)

FAREWELL_SECONDS = 5.0
"""How long a Flower client may take to end, once it is told to."""
LAST_WORDS_SECONDS = 1.0
"""How long an agent stays after its Flower client has left in the middle of a task, to say that the task has failed."""
MAX_WAITING = 32
"""Flower clients that wait for a place; more are turned away."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # A second bridge on the same port must fail, and not take every other client.
)

SERVICE = "flwr.proto.FlowerService"

Context = grpc.aio.ServicerContext[Answer, ServerMessage | bytes]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where Flower clients find the bridge. Their protocol has no authentication: whoever reaches it takes part."""

    address: str

    @classmethod
    def parse(cls, address: str, *, allow_remote: bool) -> Listen:
        """Raises `ConfigurationError`."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise ConfigurationError(f"--listen is host:port, for example 127.0.0.1:8080, not {address!r}.")
        if not allow_remote and not _is_loopback(host.strip("[]")):
            raise ConfigurationError(
                f"{host} can be reached from other machines, and Flower clients prove to nobody who they are. Listen on 127.0.0.1; "
                "or, where the network keeps strangers out, add --allow-remote."
            )
        return cls(address)


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConfigurationError(f"--listen: {host} has no address ({error.strerror}).") from error
    return all(ipaddress.ip_address(address[4][0]).is_loopback for address in found)


@dataclass(frozen=True, slots=True)
class Place:
    """For one Flower client at a time. `policy` is the owner's, that of the home when left out."""

    home: Home
    policy: Path | None = None

    def owner(self, federation: str) -> Owner:
        return Owner(self.home, federation, self.policy)


def run(listen: Listen, places: Sequence[Place], offer: Offer, max_delay: float = backoff.MAX_SECONDS) -> None:
    """`serve` until SIGINT or SIGTERM."""
    asyncio.run(agent.until_signalled(serve(listen, places, offer, max_delay)))


async def serve(listen: Listen, places: Sequence[Place], offer: Offer, max_delay: float = backoff.MAX_SECONDS) -> None:
    """Until cancelled, and then let the Flower clients end. Raises the error of the last identity that can't go on, and
    `ConfigurationError` for a policy that is broken at the beginning."""
    for place in places:
        identity = place.home.load()
        identity.raise_if_expired()
        place.owner(identity.enrolment.federation).policy()
    bridge = Bridge(places, offer, max_delay)
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=len(places) + MAX_WAITING)
    join = grpc.stream_stream_rpc_method_handler(bridge.join, messages.read, messages.write)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Join": join}),))
    try:
        port = server.add_insecure_port(listen.address)
    except RuntimeError as error:
        raise ConfigurationError(f"{listen.address} can't be listened on; is another bridge running?") from error
    await server.start()
    host = listen.address.rpartition(":")[0]
    log.info("Flower clients find the bridge at %s:%d; it has places for %d", host, port, len(places))
    try:
        await bridge.work()
    finally:
        await bridge.say_farewell()
        await server.stop(grace=None)


class Bridge:
    """Flower's service."""

    def __init__(self, places: Sequence[Place], offer: Offer, max_delay: float) -> None:
        self._places = places
        self._offer = offer
        self._max_delay = max_delay
        self._models = SharedModels()
        self._arrivals: asyncio.Queue[FlowerStream] = asyncio.Queue()
        self._streams: set[FlowerStream] = set()
        self._free = len(places)

    async def join(self, answers: AsyncIterator[Answer], context: Context) -> None:
        stream = FlowerStream(context.write)
        if not self._free:
            log.warning("A Flower client waits: all %d identities have one", len(self._places))
        self._streams.add(stream)
        self._arrivals.put_nowait(stream)
        try:
            refusal = await stream.listen(answers)
        finally:
            self._streams.discard(stream)
        if refusal:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refusal)

    async def work(self) -> None:
        """As of `serve`."""
        filling = [asyncio.create_task(self._fill(place)) for place in self._places]
        try:
            await asyncio.wait(filling)
        finally:
            for one in filling:
                one.cancel()
            await asyncio.wait(filling)
        raise filling[-1].exception() or AssertionError("a place ends by an error only")

    async def say_farewell(self) -> None:
        if self._streams:
            await asyncio.wait([asyncio.create_task(_dismiss(stream)) for stream in list(self._streams)])

    async def _fill(self, place: Place) -> None:
        """One Flower client after the other, for ever."""
        while True:
            stream = await self._arrivals.get()
            self._free -= 1
            try:
                await self._serve(place, stream)
            except Exception as error:  # whatever it is, the Flower client must not wait for ever
                log.error("%s takes no more part: %s", place.home.path, error)
                await _dismiss(stream)
                raise
            self._free += 1

    async def _serve(self, place: Place, stream: FlowerStream) -> None:
        identity = place.home.load()
        name = identity.enrolment.client_name
        try:
            client = await FlowerClient.greet(stream)
            hosted = await asyncio.to_thread(self._offer.host, client, name)
        except FlowerClientLeft:
            return
        except Exception as error:  # whatever one Flower client does, the place is there for the next
            log.error("A Flower client can't take part: %s", error, exc_info=not isinstance(error, AgentError))
            stream.refuse(str(error))
            return
        log.info("A Flower client takes part as %s, with %s %s", name, self._offer.name, self._offer.version)
        apps = {(hosted.app.name, hosted.app.version): hosted}
        owner = place.owner(identity.enrolment.federation)
        working = asyncio.create_task(
            agent.serve(place.home, identity, apps, self._max_delay, owner, models=self._models)
        )
        try:
            await _until_left(stream, working)
        finally:
            working.cancel()
            await asyncio.wait([working])
        if not working.cancelled():
            working.result()
        log.info("The Flower client of %s has left", name)


async def _until_left(stream: FlowerStream, working: asyncio.Task[None]) -> None:
    """Or until the agent has ended by an error."""
    leaving = asyncio.create_task(stream.left.wait())
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
    if stream.left_at_work:
        await asyncio.wait([working], timeout=LAST_WORDS_SECONDS)


async def _dismiss(stream: FlowerStream) -> None:
    try:
        async with asyncio.timeout(FAREWELL_SECONDS):
            await stream.say_farewell()
    except TimeoutError:
        log.warning("A Flower client has not ended within %.0f s", FAREWELL_SECONDS)
