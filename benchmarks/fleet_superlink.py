"""Rounds of unmodified clients of Flower with its SuperLink: a server, a SuperNode for each client, and a process for each message."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.flower.environment import ENVIRONMENT, python_with_flower

APP = Path(__file__).parent / "superlink_app"


def superlink_rounds(clients: int, size: int, rounds: int, seconds: float) -> list[float]:
    """The seconds of each round that has ended within `seconds`, of `rounds`."""
    with (
        tempfile.TemporaryDirectory(prefix="fedui-superlink-", ignore_cleanup_errors=True) as folder,
        ExitStack() as processes,
    ):
        home = Path(folder)
        ports = _free_ports(clients + 1)
        address = f"127.0.0.1:{ports[0]}"
        place = ["--insecure", "--host", "127.0.0.1", "--port"]
        link = ["flower-superlink", *place, str(ports[0]), "--disable-runtime-dependency-installation"]
        _start(processes, home, link)
        for port in ports[1:]:
            _start(processes, home, ["flower-supernode", *place, str(port), "--superlink", address])
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
        )
        times = home / "times.json"
        config = f'clients={clients} size={size} rounds={rounds} times="{times}"'
        end = time.monotonic() + seconds
        _submit(home, ["flwr", "run", str(APP), "bench", "--run-config", config], end)
        while len(_read(times)) < rounds and time.monotonic() < end:
            time.sleep(0.5)
        return _read(times)


def _read(file: Path) -> list[float]:
    times: list[float] = json.loads(file.read_text()) if file.exists() else []
    return times


def _submit(home: Path, command: Sequence[str], end: float) -> None:
    """As often as it takes until the server listens."""
    while subprocess.run(_with_path(command), env=_environment(home), capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            return
        time.sleep(1)


def _start(processes: ExitStack, home: Path, command: Sequence[str]) -> None:
    """A process group of its own: it starts others, which outlive it."""
    process = subprocess.Popen(
        _with_path(command),
        env=_environment(home),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    processes.callback(process.wait)
    processes.callback(_end_group, process.pid)


def _end_group(group: int) -> None:
    os.killpg(group, 9)


def _with_path(command: Sequence[str]) -> list[str]:
    return [str(python_with_flower().parent / command[0]), *command[1:]]


def _environment(home: Path) -> dict[str, str]:
    binaries = str(python_with_flower().parent)
    return {**ENVIRONMENT, "FLWR_HOME": str(home), "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]
