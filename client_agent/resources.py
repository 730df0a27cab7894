"""Holding this process to its owner's limits on processors and memory, by means of the system."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from pathlib import Path

from client_agent.errors import ConfigurationError
from client_agent.policy import Limits

if sys.platform == "linux":
    import resource

MB = 1024**2
ROOM_MB = 64
"""What an agent needs above what it takes when the limit is set, so as to say that a task takes too much."""


class Resources:
    """Remembers what there was before, so that a limit that is lifted is no limit any more."""

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._processors = sorted(os.sched_getaffinity(0))
            self._data = resource.getrlimit(resource.RLIMIT_DATA)[0]

    def hold(self, limits: Limits) -> None:
        """Raises `ConfigurationError` for what this system can't hold the agent to."""
        if sys.platform == "linux":
            try:
                self._hold_processors(limits.cpus)
                self._hold_memory(limits.memory_mb)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"The system doesn't let the agent hold limits.cpus and limits.memory_mb: {error}. Lower them, or lift "
                    "the system's own limits on this service."
                ) from error
        elif limits.cpus or limits.memory_mb:
            raise ConfigurationError("limits.cpus and limits.memory_mb need Linux: use the means of this system.")

    def _hold_processors(self, number: int | None) -> None:
        """For every thread there is; new ones inherit it. Chance spreads the agents of one machine over its processors."""
        chosen = self._processors
        if number and number < len(chosen):
            current = sorted(os.sched_getaffinity(0))
            chosen = current if len(current) == number else secrets.SystemRandom().sample(chosen, number)
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
                os.sched_setaffinity(int(thread.name), chosen)

    def _hold_memory(self, number: int | None) -> None:
        if number and number < (least := _data_mb() + ROOM_MB):
            raise ConfigurationError(f"limits.memory_mb is {number}; without any work this agent needs {least}.")
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (number * MB if number else self._data, hard))


def _data_mb() -> int:
    """What the limit counts: private memory that this process may write to, used or not."""
    match = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 // MB if match else 0
