"""Processes that a fault may end, and that are started again, as a service manager would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedui.supervisor.children import die_with_parent

RESTART_SECONDS = 0.5
GRACE_SECONDS = 15.0


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.02)


class Service:
    """One process, kept alive until `stop`."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.starts = 0
        self._command, self._environment, self._log = command, environment, log
        self._ended = threading.Event()
        self._held = threading.Event()
        self._process = self._spawn()
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; the next one starts after a moment."""
        self.signal(signal.SIGKILL)

    def hold_down(self) -> None:
        """SIGKILL, and no start before `let_up`."""
        self._held.set()
        self.kill()

    def let_up(self) -> None:
        self._held.clear()

    def signal(self, number: signal.Signals) -> None:
        """To the process and all that it has started. One that has ended takes none."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        self._ended.set()
        self._keeper.join()
        if self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self._process.wait()

    def _keep(self) -> None:
        while not self._ended.wait(RESTART_SECONDS):
            if self._process.poll() is not None and not self._held.is_set():
                self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # it only makes a system call
            )
