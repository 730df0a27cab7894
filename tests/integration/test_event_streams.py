"""Server-sent events over real connections: how many one caller may have open, and that each ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.sessions.models import Session
from django.core.cache import cache

from fedui.accounts.models import User
from fedui.api import places
from fedui.api.places import TooManyStreams, take_place
from fedui.federations.models import Federation
from fedui.keys.models import ApiKey
from fedui.keys.scopes import Scope
from fedui.keys.services import create_key, revoke_key
from fedui.runs import event_stream, live
from fedui.runs.models import Run
from tests.support.domain import a_federation, a_run, a_user
from tests.support.web_server import session_cookie, web_server

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 30
LIMIT = 2


@pytest.fixture(autouse=True)
def real_redis(redis_url: str, settings: Any) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis_url, "KEY_PREFIX": "fedui-streams",
        }
    }  # fmt: skip
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [redis_url], "prefix": "fedui-streams"},
        }
    }
    settings.API_STREAMS = LIMIT
    cache.clear()


@dataclass
class Stream:
    """One connection, as it was answered."""

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def problem(self) -> dict[str, Any]:
        body = await self.reader.readexactly(int(self.headers["content-length"]))
        told: dict[str, Any] = json.loads(body)
        return told

    async def ended(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.read()

    def leave(self) -> None:
        """As a browser that is closed, or a machine that is switched off."""
        self.writer.transport.abort()


@dataclass
class Site:
    port: int
    run: Run

    async def open(self, **headers: str) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"GET /api/v1/runs/{self.run.pk}/events/stream HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        writer.write("\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode())
        async with asyncio.timeout(SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            answered = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            stream = Stream(int(head[0].split()[1]), answered, reader, writer)
            if stream.status == 200:
                await reader.readuntil(b"retry: ")
        return stream

    async def open_at_last(self, **headers: str) -> Stream:
        """As soon as there is a place."""
        async with asyncio.timeout(SECONDS):
            while (stream := await self.open(**headers)).status == 429:
                stream.leave()
        return stream


@pytest.fixture
async def site(transactional_db: None) -> AsyncIterator[Site]:
    run = await sync_to_async(_a_run)()
    async with web_server() as port:
        yield Site(port, run)


def _a_run() -> Run:
    owner = a_user("owner")
    return a_run(a_federation("hearts", owner), owner)


def _key(scope: Scope = Scope.READ) -> tuple[ApiKey, str]:
    member = Federation.objects.get().memberships.get()
    return create_key(member, name="stream", scopes=[scope], lifetime=timedelta(1))


async def wake(run: Run) -> None:
    layer: Any = get_channel_layer()
    await layer.group_send(live.run_group(run.pk), {"type": "run.events", "events": []})


async def test_one_has_so_many_open_and_a_place_is_free_when_its_reader_has_gone(site: Site) -> None:
    _, text = await sync_to_async(_key)()
    mine = {"Authorization": f"Bearer {text}"}
    streams = [await site.open(**mine) for _ in range(LIMIT)]
    assert [stream.status for stream in streams] == [200] * LIMIT

    refused = await site.open(**mine)
    problem = await refused.problem()
    assert (refused.status, problem["code"]) == (429, "throttled")
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) > 0
    assert f"{LIMIT} event streams" in problem["detail"]
    refused.leave()

    # Others have places of their own: another key of the same account, and the account itself.
    _, other = await sync_to_async(_key)()
    others = [await site.open(Authorization=f"Bearer {other}"), await site.open(Cookie=await _session())]
    assert [stream.status for stream in others] == [200, 200]

    streams.pop().leave()
    streams.append(await site.open_at_last(**mine))
    for stream in (*streams, *others):
        stream.leave()
    # All are given back, not only left to run out.
    async with asyncio.timeout(SECONDS):
        while await sync_to_async(_taken)():
            await asyncio.sleep(0.01)


async def test_a_call_that_is_refused_takes_no_place(site: Site) -> None:
    _, text = await sync_to_async(_key)(Scope.RUNS)
    for _ in range(LIMIT + 1):
        refused = await site.open(Authorization=f"Bearer {text}")
        assert (refused.status, (await refused.problem())["code"]) == (403, "scope_missing")
    assert not await sync_to_async(_taken)()


async def test_a_stream_ends_with_the_key_the_session_and_the_account(site: Site) -> None:
    key, text = await sync_to_async(_key)()
    by_key = await site.open(Authorization=f"Bearer {text}")
    await sync_to_async(revoke_key)(key, await sync_to_async(lambda: key.user)())
    await wake(site.run)
    await by_key.ended()

    by_session = await site.open(Cookie=await _session())
    await Session.objects.all().adelete()
    await wake(site.run)
    await by_session.ended()

    by_account = await site.open(Cookie=await _session())
    await User.objects.aupdate(is_active=False)
    await wake(site.run)
    await by_account.ended()


async def test_a_reader_that_goes_in_silence_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing happens in the run."""
    monkeypatch.setattr(event_stream, "ALIVE_EVERY", 0.05)
    stream = await site.open(Cookie=await _session())
    assert b": alive" in await stream.reader.readuntil(b"alive")
    stream.leave()
    async with asyncio.timeout(SECONDS):
        while await sync_to_async(_taken)():
            await asyncio.sleep(0.01)


async def test_a_place_is_kept_while_it_is_held_and_else_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a web process that dies leaves none taken, and a reader that reads nothing has no second one."""
    monkeypatch.setattr(places, "LIFE_SECONDS", 1)
    monkeypatch.setattr(places, "HOLD_EVERY", 0.1)
    take = sync_to_async(take_place)
    held, left = await take("somebody"), await take("somebody")
    with pytest.raises(TooManyStreams):
        await take("somebody")
    async with held.held(), asyncio.timeout(SECONDS):
        while await cache.aget(left.key):
            await asyncio.sleep(0.01)
        assert (await take("somebody")).key == left.key
        with pytest.raises(TooManyStreams):
            await take("somebody")
    assert (await take("somebody")).key == held.key


async def _session() -> str:
    return await sync_to_async(session_cookie)("owner")


def _taken() -> list[str]:
    callers = [f"key:{key.pk}" for key in ApiKey.objects.all()] + [f"user:{user.pk}" for user in User.objects.all()]
    return [key for caller in callers for n in range(LIMIT) if cache.get(key := f"streams:{caller}:{n}") is not None]
