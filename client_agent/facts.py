"""Which facts of the machine the owner lets leave."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from client_agent.policy import MACHINE
from protos.fedui.v1 import fleet_pb2

_FIELDS: Mapping[str, tuple[str, ...]] = {
    "processor": ("cores", "machine_cpu_fraction"),
    "memory": ("memory_bytes", "machine_memory_used_bytes"),
    "gpu": ("gpus", "gpu_fraction", "gpu_memory_used_bytes"),
    "disk": ("disk_bytes", "disk_free_bytes"),
    "network": ("round_trip_seconds", "up_bytes_per_second", "down_bytes_per_second"),
    "clock": ("sent_at",),
}
"""Of `Machine` and `Heartbeat`. The agent's own use of processor and memory always leaves."""


def keep(message: fleet_pb2.Machine | fleet_pb2.Heartbeat, allowed: Collection[str] | None) -> None:
    """Take out what may not leave; None: everything may."""
    known = message.DESCRIPTOR.fields_by_name
    own = {"memory_bytes"} if isinstance(message, fleet_pb2.Heartbeat) else set()
    for fact in MACHINE:
        if allowed is not None and fact not in allowed:
            for name in _FIELDS[fact]:
                if name in known and name not in own:
                    message.ClearField(name)  # type: ignore[arg-type]  # one of its own
