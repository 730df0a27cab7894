"""What an agent tells of its machine and its data, over real gRPC; and what its owner keeps."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psutil
import pytest

from client_agent.hosting import HostedApps, host
from client_agent.identity import Home
from client_agent.sdk import App, Context, DataCard
from client_agent.speed import Speed
from client_agent.vitals import Vitals, parse_gpus, read_gpus
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import Launch, ToyClient, toy_model

GPU_TABLE = "NVIDIA A10, 23028, 1024, 50\nTesla T4, 15360, [N/A], [N/A]\nnonsense\n"
CARD = DataCard(125, 64, {"benign": 97, "malignant": 19, "unclear": 9}, "scans, revision 8")


@pytest.fixture
def apps(client: ToyClient) -> HostedApps:
    app = App("toy", "1.0", "numpy", lambda context: client, ["weight"], card=lambda context: CARD)
    return {("toy", "1.0"): host(app, Context("site-1"))}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


async def test_the_machine_and_its_load_are_told(server: ScriptedServer, launch: Launch, home: Home) -> None:
    launch()
    await server.until(lambda: len(server.heartbeats) >= 2)
    machine, beat = server.hellos[0].machine, server.heartbeats[-1]
    assert (machine.cores, machine.memory_bytes) == (os.cpu_count(), psutil.virtual_memory().total)
    assert 0 <= beat.machine_cpu_fraction <= 1
    assert 0 < beat.machine_memory_used_bytes < machine.memory_bytes
    assert 0 < beat.disk_free_bytes <= machine.disk_bytes == psutil.disk_usage(str(home.path)).total


async def test_clock_and_round_trip_are_told_without_the_time_spent_at_the_server(
    server: ScriptedServer, launch: Launch
) -> None:
    launch()
    await server.until(lambda: any(beat.HasField("round_trip_seconds") for beat in server.heartbeats))
    beat = server.heartbeats[-1]
    assert abs(beat.sent_at - time.time()) < 10
    assert 0 < beat.round_trip_seconds < 10
    server.holds_heartbeats = 10.0
    await server.until(lambda: server.heartbeats[-1].round_trip_seconds == 0)


async def test_rates_are_those_of_transfers(server: ScriptedServer, launch: Launch) -> None:
    launch()
    await server.until(lambda: bool(server.heartbeats))
    assert not server.heartbeats[0].HasField("up_bytes_per_second")
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await server.result("t")
    await server.until(lambda: server.heartbeats[-1].up_bytes_per_second > 0)
    assert server.heartbeats[-1].down_bytes_per_second > 0


async def test_an_agent_that_ends_says_so(server: ScriptedServer, launch: Launch) -> None:
    running = launch()
    await server.until(lambda: bool(server.heartbeats))
    assert not server.heartbeats[-1].leaving
    running.cancel()
    await server.until(lambda: server.heartbeats[-1].leaving)


def test_small_transfers_measure_nothing() -> None:
    speed = Speed()
    speed.uploaded(100, time.monotonic())
    assert speed.up is None
    speed.uploaded(10_000_000, time.monotonic() - 10)
    assert speed.up == pytest.approx(1e6, rel=0.1)
    speed.uploaded(100, time.monotonic())
    assert speed.up


def test_gpus_are_read_from_the_table_of_nvidia_smi() -> None:
    a10, t4 = parse_gpus(GPU_TABLE)
    assert (a10.name, a10.memory_bytes, a10.memory_used_bytes, a10.fraction) == (
        "NVIDIA A10", 23028 * 1024**2, 1024**3, 0.5,
    )  # fmt: skip
    assert (t4.name, t4.memory_used_bytes, t4.fraction) == ("Tesla T4", 0, 0.0)


@pytest.mark.skipif(os.name != "posix", reason="the program is a shell script")
@pytest.mark.parametrize(("script", "number"), [(f"printf '{GPU_TABLE}'", 2), ("exit 9", 0), ("kill -9 $$", 0)])
async def test_a_gpu_is_never_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, number: int
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert len(await read_gpus()) == number
    vitals = Vitals(tmp_path, Speed())
    await vitals.look_at_gpus()
    assert len(vitals.machine().gpus) == number
    assert vitals.heartbeat().HasField("gpu_fraction") == (number > 0)


async def test_without_a_policy_no_data_card_leaves(server: ScriptedServer, launch: Launch) -> None:
    launch()
    await server.until(lambda: len(server.heartbeats) >= 2)
    assert not server.hellos[0].cards.cards
    assert not any(beat.HasField("cards") for beat in server.heartbeats)


async def test_of_a_data_card_leaves_what_the_owner_publishes_now(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    home.policy_file.write_text('[leave.cards."t*"]\npublish = ["examples"]')
    launch()
    await server.until(lambda: bool(server.hellos))
    [card] = server.hellos[0].cards.cards
    assert (card.app, card.data_set, card.examples, card.HasField("features")) == ("toy", CARD.data_set, 125, False)
    assert not card.labels

    home.policy_file.write_text('[leave.cards.toy]\npublish = ["features", "labels"]\nlabel_floor = 10')
    await server.until(lambda: any(beat.HasField("cards") for beat in server.heartbeats))
    [card] = next(beat for beat in server.heartbeats if beat.HasField("cards")).cards.cards
    assert (card.features, card.HasField("examples"), card.label_floor) == (64, False, 10)
    assert {count.label: count.examples for count in card.labels} == {"benign": 90, "malignant": 10}

    seen = len(server.heartbeats)
    home.policy_file.write_text("")
    await server.until(lambda: any(beat.HasField("cards") for beat in server.heartbeats[seen:]))
    withdrawn = next(beat for beat in server.heartbeats[seen:] if beat.HasField("cards"))
    assert not withdrawn.cards.cards

    entries = [json.loads(line) for line in home.log_file.read_text().splitlines()]
    assert next(entry for entry in entries if entry["kind"] == "hello")["cards"] == [{"app": "toy", "examples": 125}]
    shown, gone = (entry for entry in entries if entry["kind"] == "card")
    assert shown["cards"] == [{"app": "toy", "features": 64, "labels": {"benign": 90, "malignant": 10}}]
    assert gone["cards"] == []


async def test_facts_of_the_machine_that_the_owner_keeps_do_not_leave(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    home.policy_file.write_text('[leave]\nmachine = ["disk"]')
    launch()
    await server.until(lambda: len(server.heartbeats) >= 3)
    machine, beat = server.hellos[0].machine, server.heartbeats[-1]
    assert [field.name for field, _ in machine.ListFields()] == ["disk_bytes"]
    assert {field.name for field, _ in beat.ListFields()} <= {"cpu_fraction", "memory_bytes", "disk_free_bytes"}
    assert beat.memory_bytes


def test_an_agent_of_this_version_tells_nothing_that_has_no_rule() -> None:
    """A fact that is added to the wire needs a place in the policy."""
    from client_agent.facts import _FIELDS

    ruled = {name for names in _FIELDS.values() for name in names}
    facts = {*fleet_pb2.Machine.DESCRIPTOR.fields_by_name, *fleet_pb2.Heartbeat.DESCRIPTOR.fields_by_name}
    assert facts - ruled == {"cpu_fraction", "cards", "leaving"}
