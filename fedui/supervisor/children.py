"""Child processes that end with their parent, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE_SECONDS = 10.0
REVIVE_SECONDS = 5.0
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1

# Loaded here: between fork and exec, nothing may be imported.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class StartFailed(Exception):
    """The platform can't start; the text is one line that says why and what to do."""


@dataclass(slots=True)
class Child:
    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes]
    started_at: float

    def last_words(self, lines: int = 5) -> str:
        with self.log.open(errors="replace") as file:
            return "".join(deque(file, lines)).strip()


class Children:
    """Starts processes with their output in files, and ends them in the reverse order."""

    def __init__(self, log_folder: Path) -> None:
        self._log_folder = log_folder
        self._children: list[Child] = []

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        log = self._log_folder / f"{name}.log"
        log.unlink(missing_ok=True)
        process = _spawn(command, environment, log)
        child = Child(name, command, environment, log, process, time.monotonic())
        self._children.append(child)
        return child

    def named(self, name: str) -> Child:
        return next(child for child in self._children if child.name == name)

    def revive(self) -> list[str]:
        """Start those that have ended again, each at most once in `REVIVE_SECONDS`. Says what was done, a line each."""
        told = []
        for child in self._children:
            code, now = child.process.poll(), time.monotonic()
            if code is not None and now - child.started_at >= REVIVE_SECONDS:
                told.append(f"{child.name} has ended with exit code {code}; starting it again. Its log: {child.log}")
                child.process, child.started_at = _spawn(child.command, child.environment, child.log), now
        return told

    def wait_until(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Raises `StartFailed` if a child ends, or `condition` doesn't come true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.raise_if_ended()
            if time.monotonic() > deadline:
                raise StartFailed(f"{what} did not happen within {seconds:.0f} s. The logs are in {self._log_folder}.")
            time.sleep(POLL_SECONDS)

    def raise_if_ended(self) -> None:
        for child in self._children:
            if (code := child.process.poll()) is not None:
                raise StartFailed(
                    f"{child.name} has ended with exit code {code}. The end of {child.log}:\n{child.last_words()}"
                )

    def stop(self) -> None:
        """Ask all to end, and end those that don't."""
        for child in reversed(self._children):
            child.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for child in reversed(self._children):
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
        self._children.clear()


def _spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603  # our own programs
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the parent, who ends the others in order
            preexec_fn=die_with_parent,  # noqa: PLW1509  # this program has one thread
        )


def die_with_parent() -> None:
    """On Linux the kernel ends the child when its parent is gone, even by SIGKILL. Elsewhere only `Children.stop` does."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
