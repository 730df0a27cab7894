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
from urllib.parse import urlsplit

from fedui.supervisor.children import Children, StartFailed
from fedui.supervisor.embedded_redis import EmbeddedRedis
from fedui.supervisor.folders import writable

START_SECONDS = 60.0
THREADS = 20
"""Each run that is hosted waits in one; some are left for short tasks. Installations run 16 at once, unless set otherwise."""
GRPC_PORT = 50051
BIN = Path(sys.executable).parent
BASE_DIR = Path(__file__).resolve().parent.parent.parent


class Stack:
    """A context manager: on leaving, all processes end. Raises `StartFailed`."""

    def __init__(self, data_dir: Path, *, host: str, port: int, grpc_port: int | None = None) -> None:
        self.data_dir = writable(data_dir)
        self.host = host
        self.port = free_port("web", "--port", port, host)
        self._grpc_host, named_port = _grpc_bind(host)
        wanted = named_port if grpc_port is None else grpc_port
        self.grpc_port = free_port("gRPC", "--grpc-port", wanted, self._grpc_host)
        self.url = f"http://{_authority(_reachable(host), self.port)}"
        self.children = Children(writable(data_dir / "log"))
        self._redis = None if os.environ.get("REDIS_URL") else EmbeddedRedis()

    @property
    def environment(self) -> Mapping[str, str]:
        """What the processes' settings are read from: ours, and the caller's where there is a choice."""
        public_url = os.environ.get("FEDUI_PUBLIC_URL") or self.url
        address = _authority(urlsplit(public_url).hostname or "", self.grpc_port)
        redis = {"REDIS_URL": self._redis.url} if self._redis else {}
        return {
            "FEDUI_DATA_DIR": str(self.data_dir),
            "FEDUI_PUBLIC_URL": public_url,
            "FEDUI_GRPC_BIND": _authority(self._grpc_host, self.grpc_port),
            "FEDUI_GRPC_ADDRESS": os.environ.get("FEDUI_GRPC_ADDRESS") or address,
            **redis,
        }

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
        # Frames are a few kB, and each would be deflated anew for everybody who watches.
        self._start_process("web", [sys.executable, "-m", "uvicorn", "fedui.asgi:application", "--ws", "wsproto",
                                    "--ws-per-message-deflate", "false", "--host", self.host, "--port", str(self.port),
                                    "--no-access-log"])  # fmt: skip
        self._start_process("worker", [*celery, "worker", "-Q", "aggregation,default", "--pool", "threads",
                                       "--concurrency", str(THREADS), "--without-gossip", "--without-mingle",
                                       "--without-heartbeat"])  # fmt: skip
        self._start_process("beat", [*celery, "beat"])
        self.children.wait_until("The start of the web server", self._web_answers, START_SECONDS)
        self.children.wait_until("The start of the worker", self._grpc_listens, START_SECONDS)

    def _start_process(self, name: str, command: list[str]) -> None:
        self.children.start(name, command, {"PYTHONPATH": str(BASE_DIR)})

    def _web_answers(self) -> bool:
        # Without a proxy, which could not reach this machine. A refusal is an answer: our address need not be allowed.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            opener.open(f"{self.url}/api/v1/ready", timeout=5).close()
        except urllib.error.HTTPError as error:
            error.close()
            return error.code < 500
        except OSError:
            return False
        return True

    def _grpc_listens(self) -> bool:
        try:
            socket.create_connection((_reachable(self._grpc_host), self.grpc_port), timeout=1).close()
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
    from django.core.management import CommandError, call_command
    from django.db import DatabaseError

    try:
        django.setup()
        call_command("migrate", interactive=False, verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
    except (ImproperlyConfigured, CommandError) as error:
        raise StartFailed(str(error)) from error
    except DatabaseError as error:
        raise StartFailed(
            f"The database can't be used: {' '.join(str(error).split())}. Look at DATABASE_URL."
        ) from error


def _grpc_bind(host: str) -> tuple[str, int]:
    """Where agents are listened for, if no flag says it."""
    named = os.environ.get("FEDUI_GRPC_BIND") or _authority(host, GRPC_PORT)
    named_host, _, port = named.rpartition(":")
    if not (named_host and port.isdecimal()):
        raise StartFailed(f"FEDUI_GRPC_BIND is {named!r}: it must read host:port, for example 127.0.0.1:{GRPC_PORT}.")
    return named_host.strip("[]"), int(port)


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reachable(host: str) -> str:
    """An address of this machine at which what listens on `host` is found."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a comparison
