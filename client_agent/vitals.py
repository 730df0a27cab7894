"""What this machine has, and how much of it is in use: for the first message and for the heartbeats. Nothing here is needed to train, so
what the system doesn't tell is left out."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from client_agent.speed import Speed
from protos import limits
from protos.fedui.v1 import fleet_pb2

log = logging.getLogger(__name__)

T = TypeVar("T")

GPU_SECONDS = 60.0
"""Between two looks at the GPUs: a look is a process."""
GPU_TIMEOUT_SECONDS = 10.0
MB = 1024**2
_UNTOLD = (OSError, psutil.Error, NotImplementedError, RuntimeError)
_QUERY = ("--query-gpu=name,memory.total,memory.used,utilization.gpu", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory_bytes: int
    memory_used_bytes: int
    fraction: float
    """How much of the time it was busy."""


class Vitals:
    """`folder`: that of the agent, whose disk is told of."""

    def __init__(self, folder: Path, speed: Speed) -> None:
        self._folder, self._speed = folder, speed
        self._process = psutil.Process()
        self._gpus: Sequence[Gpu] = ()
        self._unanswered: deque[float] = deque()
        self._round_trip: float | None = None
        _told(lambda: (self._process.cpu_percent(), psutil.cpu_percent()))  # from now on

    async def watch(self) -> None:
        """Look at the GPUs again and again."""
        while True:
            await self.look_at_gpus()
            await asyncio.sleep(GPU_SECONDS)

    async def look_at_gpus(self) -> None:
        self._gpus = await read_gpus()

    def machine(self) -> fleet_pb2.Machine:
        gpus = [
            fleet_pb2.Gpu(name=gpu.name[: limits.MAX_HARDWARE_NAME_LENGTH], memory_bytes=gpu.memory_bytes)
            for gpu in self._gpus[: limits.MAX_GPUS]
        ]
        return fleet_pb2.Machine(
            cores=_cores(),
            memory_bytes=_told(lambda: psutil.virtual_memory().total) or 0,
            disk_bytes=_told(lambda: psutil.disk_usage(str(self._folder)).total) or 0,
            gpus=gpus,
        )

    def heartbeat(self) -> fleet_pb2.Heartbeat:
        """Loads are those since the last one."""
        share = _told(self._process.cpu_percent)
        load = _told(psutil.cpu_percent)
        return fleet_pb2.Heartbeat(
            cpu_fraction=min(1.0, (share or 0.0) / 100 / max(1, _cores())),
            memory_bytes=_told(lambda: self._process.memory_info().rss) or 0,
            round_trip_seconds=self._round_trip,
            machine_cpu_fraction=None if load is None else load / 100,
            machine_memory_used_bytes=_told(_memory_used),
            disk_free_bytes=_told(lambda: psutil.disk_usage(str(self._folder)).free),
            gpu_fraction=sum(gpu.fraction for gpu in self._gpus) / len(self._gpus) if self._gpus else None,
            gpu_memory_used_bytes=sum(gpu.memory_used_bytes for gpu in self._gpus) if self._gpus else None,
            up_bytes_per_second=self._speed.up,
            down_bytes_per_second=self._speed.down,
        )

    def begin_stream(self) -> None:
        """The answers to what was sent on another stream won't come."""
        self._unanswered.clear()

    def sent(self) -> None:
        """A heartbeat leaves."""
        self._unanswered.append(time.monotonic())

    def answered(self, ack: fleet_pb2.HeartbeatAck) -> None:
        """What the last of the answered ones spent at the server counts by the server's own clock."""
        sent = [self._unanswered.popleft() for _ in range(min(max(1, ack.heartbeats), len(self._unanswered)))]
        if sent:
            held = max(0.0, ack.answered_at - ack.received_at)
            self._round_trip = max(0.0, time.monotonic() - sent[-1] - held)


async def read_gpus() -> Sequence[Gpu]:
    """Those that nvidia-smi lists; none where it isn't, or fails."""
    if (program := shutil.which("nvidia-smi")) is None:
        return ()
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(program, *_QUERY, stdin=nowhere, stdout=pipe, stderr=nowhere)
    except OSError:
        return ()
    try:
        output, _ = await asyncio.wait_for(process.communicate(), GPU_TIMEOUT_SECONDS)
    except TimeoutError:
        log.warning("nvidia-smi doesn't answer")
        return ()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    return parse_gpus(output.decode(errors="replace")) if process.returncode == 0 else ()


def parse_gpus(table: str) -> Sequence[Gpu]:
    """Lines of name, memory in MiB, memory in use, and use in per cent; a figure that a GPU doesn't tell is 0."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(table.splitlines())]
    return [
        Gpu(name, int(_number(total)) * MB, int(_number(used)) * MB, min(1.0, _number(busy) / 100))
        for name, total, used, busy in (row for row in rows if len(row) == 4)
    ]


def _number(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdecimal() else 0.0


def _cores() -> int:
    return psutil.cpu_count() or 0


def _memory_used() -> int:
    memory = psutil.virtual_memory()
    return memory.total - memory.available


def _told(tell: Callable[[], T]) -> T | None:
    try:
        return tell()
    except _UNTOLD:
        return None
