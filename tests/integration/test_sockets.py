"""The pages' WebSockets: a real web server, a real Redis, real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from aggregator.ports import Event, Level
from fedui.accounts.models import User
from fedui.federations.models import Federation, Membership, Role
from fedui.runs import delay, live
from fedui.runs.adapters import DatabaseEventSink
from fedui.runs.consumers import NOT_FOUND, NOT_SIGNED_IN
from fedui.supervisor.children import Children
from fedui.supervisor.embedded_redis import EmbeddedRedis
from tests.contracts.test_run_store import NOW, Harness, in_database
from tests.support.web_server import session_cookie, web_server

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 10


@pytest.fixture(autouse=True)
def real_redis(redis_url: str, settings: Any) -> None:
    config = {"hosts": [redis_url], "prefix": "fedui-tests"}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}
    }


@pytest.fixture
async def harness(transactional_db: None) -> Harness:
    harness = await sync_to_async(in_database)()
    await sync_to_async(_add_member)()
    return harness


def _add_member() -> None:
    member = User.objects.get(username="owner")
    Membership.objects.create(federation=Federation.objects.get(), user=member, role=Role.AUDITOR)
    User.objects.create_user("stranger")


class Site:
    """The web server, and how a browser opens its sockets."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def open(self, path: str, username: str | None, origin: str = "http://127.0.0.1") -> ClientConnection:
        headers = {"Cookie": await sync_to_async(session_cookie)(username)} if username else {}
        return await connect(f"ws://127.0.0.1:{self._port}{path}", additional_headers=headers, origin=origin)  # type: ignore[arg-type]


async def receive(socket: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), SECONDS))
    return frame


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with web_server() as port:
        yield Site(port)


@pytest.fixture
async def run_socket(harness: Harness, site: Site) -> AsyncIterator[ClientConnection]:
    socket = await site.open(f"/ws/runs/{harness.run_id}/", "owner")
    yield socket
    await socket.close()


def event(run_id: int, seq: int) -> Event:
    return Event(run_id, seq, NOW, "round.committed", Level.ROUND, f"Round {seq}", seq, None, {"seconds": 1.5})


async def test_a_member_sees_events_as_they_are_stored(harness: Harness, run_socket: ClientConnection) -> None:
    assert await receive(run_socket) == {"type": "hello", "last_seq": 0}
    lease = (await harness.take_up()).lease
    await DatabaseEventSink().write(lease, [event(harness.run_id, 1), event(harness.run_id, 2)])
    frame = await receive(run_socket)
    assert frame["type"] == "events"
    assert [e["seq"] for e in frame["events"]] == [1, 2]
    assert frame["events"][0]["data"] == {"seconds": 1.5}


async def test_hello_tells_how_far_the_run_is(harness: Harness, site: Site) -> None:
    lease = (await harness.take_up()).lease
    await DatabaseEventSink().write(lease, [event(harness.run_id, n) for n in range(1, 8)])
    socket = await site.open(f"/ws/runs/{harness.run_id}/", "owner")
    assert await receive(socket) == {"type": "hello", "last_seq": 7}
    await socket.close()


@pytest.mark.parametrize("path", ["/ws/runs/{run}/", "/ws/federations/tests/"])
@pytest.mark.parametrize(("username", "code"), [(None, NOT_SIGNED_IN), ("stranger", NOT_FOUND)])
async def test_nobody_else_sees_anything(
    harness: Harness, site: Site, path: str, username: str | None, code: int
) -> None:
    socket = await site.open(path.format(run=harness.run_id), username)
    with pytest.raises(ConnectionClosed) as closed:
        await receive(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


async def test_another_sites_page_cannot_open_a_socket(harness: Harness, site: Site) -> None:
    with pytest.raises(InvalidStatus):
        await site.open(f"/ws/runs/{harness.run_id}/", "owner", origin="https://evil.example")


async def test_pages_are_told_while_redis_is_away_and_when_it_is_back(
    harness: Harness, site: Site, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events are stored all the while."""
    monkeypatch.setattr(delay, "PING_SECONDS", 0.7)
    redis, first, second = EmbeddedRedis(), Children(tmp_path), Children(tmp_path)
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [redis.url]}}
    }
    try:
        await asyncio.to_thread(redis.start, first)
        socket = await site.open(f"/ws/runs/{harness.run_id}/", "owner")
        assert (await receive(socket))["type"] == "hello"
        await asyncio.to_thread(first.stop)
        assert await receive(socket) == {"type": "delayed", "delayed": True}
        lease = (await harness.take_up()).lease
        await DatabaseEventSink().write(lease, [event(harness.run_id, 1)])
        await asyncio.to_thread(redis.start, second)
        assert await receive(socket) == {"type": "delayed", "delayed": False}
        await DatabaseEventSink().write(lease, [event(harness.run_id, 2)])
        assert [e["seq"] for e in (await receive(socket))["events"]] == [2]
        await socket.close()
    finally:
        for children in (first, second):
            await asyncio.to_thread(children.stop)
        redis.remove()


async def test_what_a_browser_says_is_ignored(harness: Harness, run_socket: ClientConnection) -> None:
    await receive(run_socket)
    await run_socket.send("not json at all")
    await live.publish_events(harness.run_id, [{"seq": 1}])
    assert (await receive(run_socket))["events"] == [{"seq": 1}]


async def test_lists_are_told_that_they_have_changed(harness: Harness, site: Site) -> None:
    socket = await site.open("/ws/federations/tests/", "owner")
    assert await receive(socket) == {"type": "hello"}
    await live.clients_changed(str((await Federation.objects.aget()).pk))
    assert await receive(socket) == {"type": "changed", "what": "clients"}
    await socket.close()


async def test_a_browser_that_does_not_read_holds_nobody_up(harness: Harness, site: Site) -> None:
    slow = await site.open(f"/ws/runs/{harness.run_id}/", "owner")
    quick = await site.open(f"/ws/runs/{harness.run_id}/", "owner")
    await receive(slow)
    await receive(quick)
    slow.transport.pause_reading()
    for number in range(200):  # 20 MB: far more than sockets and servers buffer
        await live.publish_events(harness.run_id, [{"seq": number, "message": "x" * 100_000}])
        assert (await receive(quick))["events"][0]["seq"] == number
    await quick.close()
    slow.transport.abort()


async def test_redis_away_does_not_stop_the_engine(harness: Harness, settings: Any) -> None:
    config = {"hosts": ["redis://127.0.0.1:1"]}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}
    }
    lease = (await harness.take_up()).lease
    await DatabaseEventSink().write(lease, [event(harness.run_id, 1)])
