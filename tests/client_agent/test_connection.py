"""The stream: greeting, heartbeats, and what happens when it breaks."""

from __future__ import annotations

import asyncio
import itertools
import math
import re
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from client_agent import backoff
from client_agent.errors import CertificateExpired, Dismissed
from client_agent.state import AgentState
from protos import limits
from protos.convert import scalars_from_proto, signature_from_proto
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.client_agent.pki import Authority
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import TOY_SHAPE, Launch, ToyClient, toy_model


async def test_the_first_message_says_what_the_agent_offers(server: ScriptedServer, launch: Launch) -> None:
    launch()
    await server.until(lambda: bool(server.hellos))
    hello = server.hellos[0]
    assert hello.protocol_major == limits.PROTOCOL_MAJOR
    offer = hello.apps[0]
    assert (offer.name, offer.version, offer.framework) == ("toy", "1.0", "numpy")
    assert signature_from_proto(offer.signature).tensors[0].shape == TOY_SHAPE
    assert scalars_from_proto(hello.properties) == {"num_examples": 7}


async def test_heartbeats_tell_how_much_the_agent_uses(server: ScriptedServer, launch: Launch) -> None:
    launch()
    await server.until(lambda: len(server.heartbeats) >= 2)
    assert server.heartbeats[1].memory_bytes > 10_000_000
    assert 0 <= server.heartbeats[1].cpu_fraction <= 1


async def test_work_goes_on_while_the_server_is_away_and_its_result_is_delivered(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    client.may_end.clear()
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await asyncio.to_thread(client.started.wait)
    await server.stop()
    client.may_end.set()
    await server.start()
    assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    assert "t" in server.hellos[-1].tasks_in_hand
    assert client.fits == 1


async def test_a_silent_server_is_left_for_a_new_stream(server: ScriptedServer, launch: Launch) -> None:
    server.acknowledges = False
    launch()
    await server.until(lambda: len(server.hellos) >= 2)


async def test_a_server_that_says_goodbye_for_now_is_called_again(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=0.01))
    await server.until(lambda: len(server.hellos) == 2)


async def test_an_agent_goes_to_the_server_that_stands_by_and_remembers_it(
    server: ScriptedServer, launch: Launch, tmp_path: Path
) -> None:
    other = ScriptedServer(server.authority)
    await other.start()
    try:
        running = launch()
        nowhere = ["not an address", "host:1 --proxy", "a" * 300 + ":1"]
        server.push(servers=fleet_pb2.Servers(addresses=[*nowhere, other.address]))
        await server.until((tmp_path / "home" / "servers.json").exists)
        await server.stop()
        await other.until(lambda: len(other.hellos) == 1)
        other.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
        assert (await other.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED, "models and updates go there too"
        running.cancel()
        await asyncio.wait([running])
        launch()
        await other.until(lambda: len(other.hellos) == 2)
        await server.start()
        await other.stop()
        await server.until(lambda: len(server.hellos) == 2)
    finally:
        await other.stop()


async def test_a_goodbye_for_good_ends_the_agent(server: ScriptedServer, launch: Launch) -> None:
    running = launch()
    server.push(goodbye=fleet_pb2.Goodbye(reason="This client was revoked.", reconnect_after_seconds=-1))
    with pytest.raises(Dismissed, match="This client was revoked"):
        await running


async def test_a_server_may_refuse_instead_of_a_welcome(server: ScriptedServer, launch: Launch) -> None:
    server.greeting = fleet_pb2.Goodbye(reason="This agent is too old.", reconnect_after_seconds=-1)
    with pytest.raises(Dismissed, match="too old"):
        await launch()


async def test_an_agent_that_is_refused_for_good_ends(server: ScriptedServer, launch: Launch) -> None:
    server.refusal = grpc.StatusCode.UNAUTHENTICATED
    with pytest.raises(Dismissed, match="refuses this client: Ask the federation's operator"):
        await launch()


async def test_an_agent_that_is_refused_for_now_tries_again(server: ScriptedServer, launch: Launch) -> None:
    server.refusal = grpc.StatusCode.PERMISSION_DENIED
    launch()
    await server.until(lambda: len(server.refused_streams) >= 2)
    server.refusal = None
    await server.until(lambda: bool(server.hellos))


async def test_an_expired_certificate_ends_the_agent_before_it_connects(server: ScriptedServer, launch: Launch) -> None:
    with pytest.raises(CertificateExpired, match="enrol again"):
        await launch(life=timedelta(hours=-1))
    assert not server.hellos


async def test_a_server_with_another_ca_gets_no_hello(server: ScriptedServer, launch: Launch, tmp_path: Path) -> None:
    running = launch(authority=Authority())
    state_file = tmp_path / "home" / "state.json"
    async with asyncio.timeout(20):
        while not AgentState.read(state_file).last_error:
            await asyncio.sleep(0.01)
    assert not running.done()
    assert not server.hellos


async def test_a_transfer_goes_on_as_soon_as_the_server_is_back(
    server: ScriptedServer, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.break_upload_after = 600_000
    launch()
    await server.until(lambda: bool(server.hellos))
    monkeypatch.setattr(backoff, "delays", lambda cap: itertools.repeat(3600.0))
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await server.until(lambda: server.break_upload_after is None)
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=0.01))
    assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 1e300])
async def test_a_server_that_sends_agents_away_for_ever_is_called_again(
    server: ScriptedServer, launch: Launch, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(backoff, "MAX_SECONDS", 0.05)
    launch()
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=seconds))
    await server.until(lambda: len(server.hellos) >= 2)


async def test_a_server_that_calls_agents_back_at_once_is_given_a_moment(
    server: ScriptedServer, launch: Launch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    launch()
    server.push(goodbye=fleet_pb2.Goodbye(reason="Come!", reconnect_after_seconds=0.0))
    await server.until(lambda: len(server.hellos) >= 2)
    assert re.search(r"Come!\); next attempt in 1\.\d s", caplog.text)


@pytest.mark.parametrize("seconds", [math.nan, 0.0, -1.0, math.inf])
async def test_a_server_that_wants_no_sensible_heartbeat_is_left_and_called_again(
    server: ScriptedServer, launch: Launch, seconds: float
) -> None:
    server.heartbeat_seconds = seconds
    running = launch()
    await server.until(lambda: len(server.hellos) >= 3)
    assert not running.done()
