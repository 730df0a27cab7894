"""What an agent says of its machine and its data, held to bounds: a peer may say anything."""

from __future__ import annotations

import math

from aggregator.ports import DataCard, Gpu, Machine, Vitals
from protos import limits
from protos.fedui.v1 import fleet_pb2

MOST_BYTES = 2**53
"""Every JSON reader keeps whole numbers up to here."""
MOST_SECONDS = 3600.0
MOST_CORES = 65_536
MOST_SKEW_SECONDS = 10 * 365 * 86_400.0
_CONTROL_CHARACTERS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")


def line(words: str, most: int) -> str:
    """What an agent wrote for people, fit to be stored and shown: in one line, without what a terminal would take for orders."""
    return words[:most].translate(_CONTROL_CHARACTERS).strip()


def has_control_characters(words: str) -> bool:
    return words != words.translate(_CONTROL_CHARACTERS)


def vitals_of(beat: fleet_pb2.Heartbeat, received_at: float) -> Vitals:
    """The figures that make sense; the others are left out. `received_at`: the server's clock, seconds since 1970."""
    figures = {
        "agent_cpu": _within(beat.cpu_fraction, 0, 1),
        "agent_memory": _within(beat.memory_bytes or None, 0, MOST_BYTES),
        "cpu": _within(_told(beat, "machine_cpu_fraction"), 0, 1),
        "memory_used": _within(_told(beat, "machine_memory_used_bytes"), 0, MOST_BYTES),
        "disk_free": _within(_told(beat, "disk_free_bytes"), 0, MOST_BYTES),
        "gpu": _within(_told(beat, "gpu_fraction"), 0, 1),
        "gpu_memory_used": _within(_told(beat, "gpu_memory_used_bytes"), 0, MOST_BYTES),
        "round_trip": (round_trip := _within(_told(beat, "round_trip_seconds"), 0, MOST_SECONDS)),
        "up_rate": _within(_told(beat, "up_bytes_per_second"), 0, MOST_BYTES),
        "down_rate": _within(_told(beat, "down_bytes_per_second"), 0, MOST_BYTES),
    }
    if round_trip is not None and beat.sent_at:
        # As in NTP: the heartbeat took half of the round trip to come here.
        ahead = beat.sent_at + round_trip / 2 - received_at
        figures["clock_skew"] = _within(ahead, -MOST_SKEW_SECONDS, MOST_SKEW_SECONDS)
    return {name: value for name, value in figures.items() if value is not None}


def machine_of(machine: fleet_pb2.Machine) -> Machine:
    return Machine(
        cores=min(machine.cores, MOST_CORES),
        memory_bytes=min(machine.memory_bytes, MOST_BYTES),
        disk_bytes=min(machine.disk_bytes, MOST_BYTES),
        gpus=tuple(
            Gpu(line(gpu.name, limits.MAX_HARDWARE_NAME_LENGTH), min(gpu.memory_bytes, MOST_BYTES))
            for gpu in machine.gpus[: limits.MAX_GPUS]
        ),
    )


def cards_of(cards: fleet_pb2.DataCards) -> tuple[DataCard, ...]:
    return tuple(_card(card) for card in cards.cards[: limits.MAX_APPS])


def _card(card: fleet_pb2.DataCard) -> DataCard:
    return DataCard(
        app=line(card.app, 63),
        app_version=line(card.app_version, 32),
        data_set=line(card.data_set, limits.MAX_LABEL_LENGTH),
        examples=min(card.examples, limits.MAX_NUM_EXAMPLES) if card.HasField("examples") else None,
        features=min(card.features, limits.MAX_NUM_EXAMPLES) if card.HasField("features") else None,
        labels=tuple(
            (line(count.label, limits.MAX_LABEL_LENGTH), min(count.examples, limits.MAX_NUM_EXAMPLES))
            for count in card.labels[: limits.MAX_LABELS]
        ),
        label_floor=min(card.label_floor, limits.MAX_NUM_EXAMPLES),
    )


def _told(beat: fleet_pb2.Heartbeat, name: str) -> float | None:
    value: float | None = getattr(beat, name) if beat.HasField(name) else None  # type: ignore[arg-type]  # one of its own
    return value


def _within(value: float | None, least: float, most: float) -> float | None:
    """The value, moved to the nearer bound; None for what is no number."""
    return None if value is None or math.isnan(value) else min(max(value, least), most)
