"""The agent renews its certificate while it works."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client_agent.certificates import certificate_of, key_matches_certificate
from client_agent.departures import Departures
from client_agent.identity import Home, Identities
from client_agent.ledger import Ledger, entries
from client_agent.policy import Leave
from client_agent.renewal import Renewal
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.client_agent.pki import Authority
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import Launch, ToyClient, toy_model

DUE = timedelta(minutes=2)
"""What is left of a certificate that began twelve minutes earlier: more than two thirds of its life are over."""


class Clock:
    """Time passes only while one sleeps."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        await asyncio.sleep(0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def enrolled(home: Home, server: ScriptedServer, life: timedelta) -> Identities:
    identity = server.authority.identity(server.address, life=life)
    home.save(identity)
    return Identities(home, identity)


def departures(home: Home) -> Departures:
    return Departures(Ledger(home.log_file), Leave, "tests")


async def run_until(server: ScriptedServer, renewal: Renewal, condition: Callable[[], bool]) -> None:
    running = asyncio.create_task(renewal.run())
    try:
        await server.until(condition)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_it_renews_at_two_thirds_of_the_life_with_a_new_key(server: ScriptedServer, home: Home) -> None:
    identities, clock = enrolled(home, server, timedelta(hours=24)), Clock()
    first, begun = identities.current, clock.now

    await run_until(
        server, Renewal(identities, departures(home), clock=clock, sleep=clock.sleep), lambda: bool(server.confirmed_by)
    )

    waited = clock.now - begun
    assert timedelta(hours=15.7) < waited < timedelta(hours=17.3)
    assert max(clock.slept) <= 60
    second = home.load()
    assert identities.current == second
    assert second.key_pem != first.key_pem
    assert key_matches_certificate(second)
    assert server.renewed_by == [certificate_of(first).serial_number]
    assert server.confirmed_by == [certificate_of(second).serial_number]
    assert second.enrolment.client_id == first.enrolment.client_id
    assert [entry["kind"] for entry in entries(home.log_file)] == ["renewal"]


async def test_an_agent_whose_clock_is_far_ahead_does_not_renew_all_the_time(
    server: ScriptedServer, home: Home
) -> None:
    identities, clock = enrolled(home, server, timedelta(hours=24)), Clock()
    clock.now += timedelta(days=400)
    renewal = Renewal(identities, departures(home), clock=clock, sleep=clock.sleep)
    await run_until(server, renewal, lambda: len(server.renewed_by) >= 4)
    assert sum(clock.slept) > 3 * timedelta(minutes=3).total_seconds()


async def test_it_learns_which_authorities_to_trust(server: ScriptedServer, home: Home) -> None:
    server.renewal_bundle = server.authority.pem + Authority("Next CA").pem
    identities = enrolled(home, server, DUE)
    await run_until(server, Renewal(identities, departures(home)), lambda: bool(server.confirmed_by))
    assert home.load().ca_pem == server.renewal_bundle


async def test_a_suspended_agent_goes_on_asking(server: ScriptedServer, home: Home) -> None:
    server.renewal_refusals = 3
    identities, clock = enrolled(home, server, DUE), Clock()
    await run_until(
        server, Renewal(identities, departures(home), clock=clock, sleep=clock.sleep), lambda: bool(server.confirmed_by)
    )
    assert len(server.renewed_by) == 1


async def test_a_certificate_from_an_authority_that_is_not_in_the_answer_is_not_taken(
    server: ScriptedServer, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    server.renewal_bundle = Authority("Other CA").pem
    identities, clock = enrolled(home, server, DUE), Clock()
    first = identities.current
    await run_until(
        server,
        Renewal(identities, departures(home), clock=clock, sleep=clock.sleep),
        lambda: len(server.renewed_by) >= 2,
    )
    assert home.load() == first
    assert "no certificate signed by its CA" in caplog.text


async def test_a_server_that_renews_nothing_is_asked_once(
    authority: Authority, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = ScriptedServer(authority)
    server.renews = False
    await server.start()
    try:
        await asyncio.wait_for(Renewal(enrolled(home, server, DUE), departures(home)).run(), 20)
    finally:
        await server.stop()
    assert "enrol again before this one ends" in caplog.text


async def test_a_renewal_in_the_middle_of_a_task_disturbs_neither_stream_nor_work(
    server: ScriptedServer, launch: Launch, client: ToyClient, tmp_path: Path
) -> None:
    client.may_end.clear()
    server.heartbeat_seconds = 5.0  # a slow machine is no reason to leave the stream
    server.renewal_refusals = 1  # so that the task is at work before the renewal
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    launch(life=DUE)
    await asyncio.to_thread(client.started.wait)
    await server.until(lambda: bool(server.confirmed_by))
    client.may_end.set()

    assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    renewed = certificate_of(Home(tmp_path / "home").load()).serial_number
    assert client.fits == 1
    assert len(server.hellos) == 1
    assert server.connected_by[0] != renewed
    assert server.uploaded_by == [renewed]


async def test_the_next_stream_opens_with_the_new_certificate(server: ScriptedServer, launch: Launch) -> None:
    launch(life=DUE)
    await server.until(lambda: bool(server.confirmed_by))
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=0.01))
    await server.until(lambda: len(server.hellos) == 2)
    assert server.connected_by == [server.renewed_by[0], server.confirmed_by[0]]
