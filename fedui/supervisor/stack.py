"""Web, worker and beat of one machine, with an embedded Redis where none is named."""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from fedui.supervisor.children import Children, StartFailed
from fedui.supervisor.embedded_redis import EmbeddedRedis

START_SECONDS = 60.0
CONCURRENT_RUNS = 16
BIN = Path(sys.executable).parent
BASE_DIR = Path(__file__).resolve().parent.parent.parent


class Stack:
    """A context manager: on leaving, all processes end. Raises `StartFailed`."""

    def __init__(self, data_dir: Path, *, host: str, port: int, grpc_port: int) -> None:
        self.data_dir = _writable(data_dir)
        self.host = host
        self.port = free_port("web", "--port", port, host)
        self.grpc_port = free_port("gRPC", "--grpc-port", grpc_port, host)
        self.url = f"http://{_reachable(host)}:{self.port}"
        self.children = Children(_writable(data_dir / "log"))
        self._redis = None if os.environ.get("REDIS_URL") else EmbeddedRedis()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes' settings are read from, where the caller's environment doesn't say it."""
        defaults = {
            "FEDUI_PUBLIC_URL": self.url,
            "FEDUI_GRPC_BIND": f"{self.host}:{self.grpc_port}",
            "FEDUI_GRPC_ADDRESS": f"{_reachable(self.host)}:{self.grpc_port}",
        }
        named = {name: os.environ.get(name, value) for name, value in defaults.items()}
        redis = {"REDIS_URL": self._redis.url} if self._redis else {}
        return {"FEDUI_DATA_DIR": str(self.data_dir), **named, **redis}

    def __enter__(self) -> Stack:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.children.stop()
        if self._redis:
            self._redis.remove()

    def keep_alive(self, say: Callable[[str], None]) -> None:
        """For ever: what ends is started again."""
        while True:
            for line in self.children.revive():
                say(line)
            time.sleep(1)

    def _start(self) -> None:
        if self._redis:
            self._redis.start(self.children)
        os.environ.update(self.environment)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedui.settings")
        _prepare()
        celery = [sys.executable, "-m", "celery", "-A", "fedui"]
        self._start_process("web", [sys.executable, "-m", "uvicorn", "fedui.asgi:application", "--ws", "wsproto",
                                    "--host", self.host, "--port", str(self.port), "--no-access-log"])  # fmt: skip
        self._start_process("worker", [*celery, "worker", "-Q", "aggregation,default", "--pool", "threads",
                                       "--concurrency", str(CONCURRENT_RUNS), "--without-gossip", "--without-mingle"])  # fmt: skip
        self._start_process("beat", [*celery, "beat"])
        self.children.wait_until("The start of the web server", self._web_answers, START_SECONDS)
        self.children.wait_until("The start of the worker", self._grpc_listens, START_SECONDS)

    def _start_process(self, name: str, command: list[str]) -> None:
        self.children.start(name, command, {"PYTHONPATH": str(BASE_DIR)})

    def _web_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/health", timeout=5):  # noqa: S310  # our own address
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _grpc_listens(self) -> bool:
        try:
            socket.create_connection((_reachable(self.host), self.grpc_port), timeout=1).close()
        except OSError:
            return False
        return True


def free_port(what: str, option: str, port: int, host: str) -> int:
    """`port` if it can be bound, or any free one for 0. Raises `StartFailed`."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartFailed(
                f"Port {port} for {what} can't be used ({error.strerror}). Choose another with {option}, or 0 for any."
            ) from error
        return int(probe.getsockname()[1])


def _prepare() -> None:
    """Migrations and static files, in this process: it has the settings now."""
    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import call_command

    try:
        django.setup()
    except ImproperlyConfigured as error:
        raise StartFailed(str(error)) from error
    call_command("migrate", interactive=False, verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartFailed(
            f"The folder {folder} can't be made: {error.strerror}. Choose another: --data-dir."
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartFailed(f"You may not write to {folder}. Choose another folder: --data-dir.")
    return folder


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104  # a comparison
