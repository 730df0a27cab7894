"""The platform as `fedui up` starts it, and data owners' agents, as processes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent
TOO_LONG = 120.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TOO_LONG
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {TOO_LONG:g} s"
        time.sleep(0.05)


class Platform:
    """With an embedded Redis and SQLite, on free ports. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("FEDUI_", "DJANGO_", "REDIS_"))
        } | {"FEDUI_DATA_DIR": str(folder / "data")}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.output = folder / "up.out"

    def __enter__(self) -> Platform:
        with self.output.open("wb") as output:
            command = [str(BIN / "fedui"), "up", "--port", "0", "--grpc-port", "0"]
            self.process = subprocess.Popen(command, env=self._environment, stdout=output, stderr=subprocess.STDOUT)
        until(lambda: "FedUI runs at" in self.said or self.process.poll() is not None, "The start of the platform")
        address = re.search(r"FedUI runs at (\S+);", self.said)
        assert address, self.said
        self.url = address[1]
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._processes, self.process]:
            process.terminate()
        for process in [*self._processes, self.process]:
            process.wait(TOO_LONG)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def create_user(self, username: str, password: str) -> None:
        environment = self._environment | {"DJANGO_SUPERUSER_PASSWORD": password}
        command = [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username", username]
        subprocess.run([*command, "--email", f"{username}@example.org"], cwd=ROOT, env=environment, check=True)

    def run_agent(self, line: str, name: str, *settings: str) -> None:
        """Do what a data owner does with the line that the token's page shows, in a home of its own."""
        enroll, _, run = line.partition(" && ")
        home = ["--home", str(self._folder / name)]
        subprocess.run([*_command(enroll), "--name", name, *home], env=self._environment, check=True)
        options = [part for setting in settings for part in ("--set", setting)]
        log = (self._folder / f"{name}.log").open("wb")
        self._processes.append(
            subprocess.Popen(
                _command(run) + home + options, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )
        )
        log.close()

    def kill(self, name: str) -> None:
        """SIGKILL one of the platform's processes: "uvicorn", "worker" or "beat" by its command line."""
        (victim,) = [c for c in psutil.Process(self.process.pid).children() if name in c.cmdline()]
        victim.kill()


def _command(line: str) -> list[str]:
    program, *arguments = shlex.split(line)
    return [str(BIN / program), *arguments]
