"""What agents say of their machines, as the engine takes it: bounded, finite, and by the server's clock."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.transport.vitals import MOST_BYTES, cards_of, machine_of, vitals_of
from protos import limits
from protos.fedui.v1 import fleet_pb2
from tests.aggregator.conftest import Federation

ANY = st.floats(width=64)
COUNT = st.integers(0, 2**64 - 1)


@given(
    st.builds(
        fleet_pb2.Heartbeat,
        cpu_fraction=ANY, memory_bytes=COUNT, sent_at=ANY, round_trip_seconds=ANY, machine_cpu_fraction=ANY,
        machine_memory_used_bytes=COUNT, disk_free_bytes=COUNT, gpu_fraction=ANY, gpu_memory_used_bytes=COUNT,
        up_bytes_per_second=ANY, down_bytes_per_second=ANY,
    ),
    st.floats(0, 1e10),
)  # fmt: skip
def test_figures_are_finite_and_bounded_whatever_is_sent(beat: fleet_pb2.Heartbeat, now: float) -> None:
    for name, value in vitals_of(beat, now).items():
        assert math.isfinite(value)
        assert abs(value) <= MOST_BYTES
        assert value >= 0 or name == "clock_skew"
        assert name not in ("cpu", "agent_cpu", "gpu") or value <= 1


def test_what_is_not_told_is_left_out() -> None:
    assert vitals_of(fleet_pb2.Heartbeat(memory_bytes=5), 100.0) == {"agent_cpu": 0.0, "agent_memory": 5}
    unknown = fleet_pb2.Heartbeat(cpu_fraction=math.nan, round_trip_seconds=0.5, sent_at=math.nan)
    assert vitals_of(unknown, 100.0) == {"round_trip": 0.5}


def test_the_skew_is_how_far_the_agents_clock_is_ahead() -> None:
    beat = fleet_pb2.Heartbeat(sent_at=1_000.0 + 3600 - 0.5, round_trip_seconds=1.0)
    assert vitals_of(beat, 1_000.0)["clock_skew"] == pytest.approx(3600)


def test_names_and_numbers_of_things_are_limited() -> None:
    gpu = fleet_pb2.Gpu(name="A10\n\x1b[2J" + "x" * 500, memory_bytes=2**64 - 1)
    machine = machine_of(fleet_pb2.Machine(cores=2**32 - 1, memory_bytes=2**64 - 1, gpus=[gpu] * 100))
    assert (machine.cores, machine.memory_bytes, len(machine.gpus)) == (65_536, MOST_BYTES, limits.MAX_GPUS)
    assert machine.gpus[0].name.startswith("A10  [2Jx")
    assert len(machine.gpus[0].name) == limits.MAX_HARDWARE_NAME_LENGTH
    labels = [fleet_pb2.LabelCount(label="y\0" * 200, examples=2**64 - 1)] * 500
    card = fleet_pb2.DataCard(app="a" * 500, app_version="1", data_set="d\0" * 200, examples=2**64 - 1, labels=labels)
    taken = cards_of(fleet_pb2.DataCards(cards=[card] * 200))
    assert len(taken) == limits.MAX_APPS
    assert (len(taken[0].app), taken[0].examples) == (63, limits.MAX_NUM_EXAMPLES)
    assert len(taken[0].labels) == limits.MAX_LABELS
    assert "\0" not in taken[0].data_set + taken[0].labels[0][0]
    assert taken[0].features is None


async def test_a_clock_that_is_an_hour_wrong_changes_no_presence(federation: Federation) -> None:
    agent = await federation.connect("a")
    agent.send(heartbeat=fleet_pb2.Heartbeat(sent_at=time.time() - 3600, round_trip_seconds=0.0))
    await federation.until(lambda: "a" in federation.registry.signs)
    sign = federation.registry.signs["a"]
    assert sign.vitals["clock_skew"] == pytest.approx(-3600, abs=20)
    assert 0 <= sign.age_seconds < 20
    assert "a" in federation.registry.online


async def test_an_agent_that_says_it_ends_has_left_and_one_that_is_cut_off_has_not(federation: Federation) -> None:
    for name, says in (("a", True), ("b", False)):
        agent = await federation.connect(name)
        agent.send(heartbeat=fleet_pb2.Heartbeat(leaving=says, memory_bytes=1))
        await federation.until(lambda name=name: name in federation.registry.signs)  # type: ignore[misc]
        await agent.hang_up()
    await federation.until(lambda: not federation.registry.online)
    assert federation.registry.left == {"a"}


async def test_a_stream_whose_client_has_moved_to_another_server_is_ended(federation: Federation) -> None:
    agent = await federation.connect("a")
    federation.registry.sessions["a"] = "that of another engine"
    agent.send(heartbeat=fleet_pb2.Heartbeat())
    await federation.until(agent.goodbye.done)
    assert "connected to another server" in agent.goodbye.result().reason
    assert "a" in federation.registry.online


async def test_cards_that_change_are_told_once(federation: Federation) -> None:
    agent = await federation.connect("a")
    cards = fleet_pb2.DataCards(cards=[fleet_pb2.DataCard(app="toy", app_version="1", examples=7)])
    agent.send(heartbeat=fleet_pb2.Heartbeat(cards=cards))
    await federation.until(lambda: "a" in federation.registry.signs)
    first = federation.registry.signs["a"].cards
    assert first
    assert first[0].examples == 7
    agent.send(heartbeat=fleet_pb2.Heartbeat())
    await federation.until(lambda: federation.registry.signs["a"].cards is None)
