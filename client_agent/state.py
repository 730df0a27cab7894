"""What the running agent is doing, in a small file for `fedagent status`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client_agent.identity import private_file

log = logging.getLogger(__name__)

_QUERY_LIMITED_INFORMATION = 0x1000


@dataclass(frozen=True, slots=True)
class AgentState:
    """Times are ISO 8601 in UTC. `pid` is None once the agent has ended."""

    pid: int | None = None
    connected: bool = False
    last_connected_at: str | None = None
    last_error: str | None = None
    task: dict[str, Any] | None = None
    unavailable: str = ""
    """Why it takes no tasks, as its owner will have it."""

    @classmethod
    def read(cls, path: Path) -> AgentState:
        """The state in the file; that of an agent that never ran if there is none. A dead agent's counts as ended."""
        try:
            state = cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return cls()
        return state if _is_alive(state.pid) else replace(state, pid=None, connected=False, task=None)


WORK_SECONDS = 1.0
"""Tasks that follow each other more quickly aren't all shown: a file for each would take longer than they do."""


class StateFile:
    """Keeps the file true, replacing it at once, so that a reader never sees half of it. It waits for no disk: what the agent was doing
    when the machine stopped is nothing to know afterwards."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due: asyncio.TimerHandle | None = None
        self._state = replace(AgentState.read(path), pid=os.getpid(), connected=False, task=None, unavailable="")

    @property
    def current(self) -> AgentState:
        return self._state

    def connected(self) -> None:
        self._write(replace(self._state, connected=True, last_connected_at=now(), last_error=None))

    def disconnected(self, reason: str) -> None:
        self._write(replace(self._state, connected=False, last_error=reason))

    def working_on(self, task: dict[str, Any] | None) -> None:
        """In the file after `WORK_SECONDS` at most."""
        self._state = replace(self._state, task=task)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(WORK_SECONDS, lambda: self._write(self._state))

    def available(self, unavailable: str) -> None:
        self._write(replace(self._state, unavailable=unavailable))

    def ended(self) -> None:
        self._write(replace(self._state, pid=None, connected=False, task=None))

    def _write(self, state: AgentState) -> None:
        self._state = state
        if self._due:
            self._due.cancel()
            self._due = None
        fresh = self._path.with_suffix(".new")
        try:
            with private_file(fresh, lasting=False) as file:
                file.write(json.dumps(asdict(state)).encode())
            fresh.replace(self._path)
        except OSError as error:  # A full disk must not end a training that fits in memory.
            log.warning("%s can't be written: %s", self._path, error.strerror)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    if sys.platform == "win32":  # there, os.kill would end the process
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
        ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
