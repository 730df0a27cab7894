"""A whole installation as processes of its own, on one machine: database, Redis, web, worker, beat, network, agents."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psycopg
import redis

from fedui.supervisor.embedded_redis import server_program
from tests.chaos.disk import Disk
from tests.chaos.network import Network
from tests.chaos.processes import Service, until

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
POSTGRES = os.environ.get("FEDUI_TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
WORKERS = ("first worker", "second worker")
"""One serves, the other stands by."""
CLIENTS = ("hosp-alder", "hosp-birch", "hosp-cedar")
UPLOADS_KEPT_SECONDS = 20
APP = "tests.chaos.counting_app:app"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A context manager. `database` is "postgres" or "sqlite"."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.failpoints = folder / "failpoints"
        self.data = folder / "data"
        self.trainings = folder / "trainings"
        for one in (self.failpoints, self.data, self.trainings, folder / "log"):
            one.mkdir(parents=True, exist_ok=True)
        self.disk = Disk(self.data / "models")
        self._sockets = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.web_port = free_port()
        self.grpc_ports = {name: free_port() for name in WORKERS}
        self.network = Network(self.grpc_ports.values())
        self._database = f"fedui_chaos_{secrets.token_hex(4)}" if database == "postgres" else None
        self.services: dict[str, Service] = {}
        self.url = f"http://127.0.0.1:{self.web_port}"
        self.environment = self._clean_environment() | {
            "FEDUI_DATA_DIR": str(self.data),
            "FEDUI_PUBLIC_URL": self.url,
            "FEDUI_GRPC_ADDRESS": self._address(WORKERS[0]),
            "FEDUI_UPLOAD_KEEP_SECONDS": str(UPLOADS_KEPT_SECONDS),
            "FEDUI_FAILPOINTS": str(self.failpoints),
            "REDIS_URL": f"unix://{self._sockets}/redis.sock",
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "fedui.settings",
            **self._database_url(),
        }

    def __enter__(self) -> Cluster:
        if self._database:
            with self._postgres() as connection:
                connection.execute(f"CREATE DATABASE {self._database}")
        manage = [sys.executable, str(ROOT / "manage.py")]
        for command in (["migrate", "--verbosity", "0"], ["collectstatic", "--no-input", "--verbosity", "0"]):
            subprocess.run([*manage, *command], env=self.environment, check=True)
        self._start_redis()
        celery = [sys.executable, "-m", "celery", "-A", "fedui"]
        self._start("web", [sys.executable, "-m", "uvicorn", "fedui.asgi:application", "--ws", "wsproto",
                            "--port", str(self.web_port), "--no-access-log"])  # fmt: skip
        for name in WORKERS:
            place = {
                "FEDUI_GRPC_BIND": f"127.0.0.1:{self.grpc_ports[name]}",
                "FEDUI_GRPC_ADDRESS": self._address(name),
            }
            self._start(name, self._worker_command(), self.environment | place)
        self._start("beat", [*celery, "beat", "--schedule", str(self.folder / "beat")])
        until(self.web_answers, "The start of the web server")
        return self

    def __exit__(self, *_: object) -> None:
        for service in reversed(self.services.values()):
            service.stop()
        if self._database:
            with self._postgres() as connection:
                connection.execute(f"DROP DATABASE {self._database} WITH (FORCE)")
        shutil.rmtree(self._sockets)
        self.disk.remove()

    def enrol(self, name: str, token: str, index: int) -> None:
        """Start an agent as a client of its own."""
        home = ["--home", str(self.folder / name)]
        environment = self.environment | {
            "FEDAGENT_TOKEN": token,
            "CHAOS_TRAININGS": str(self.trainings / name),
        }
        agent = str(BIN / "fedagent")
        subprocess.run([agent, "enroll", self.url, "--name", name, *home], env=environment, check=True)
        options = [f"partition={index}", f"partitions={len(CLIENTS)}", "slowdown=0.15"]
        settings = [part for option in options for part in ("--set", option)]
        self._start(name, [agent, "run", "--app", APP, *settings, *home], environment)

    def take_database_away(self) -> None:
        """End all its connections and refuse new ones, as a restart of PostgreSQL does. SQLite has none."""
        self._on_database("ALTER DATABASE {} ALLOW_CONNECTIONS false")
        if self._database:
            with self._postgres() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._database,)
                )

    def bring_database_back(self) -> None:
        self._on_database("ALTER DATABASE {} ALLOW_CONNECTIONS true")

    def heal(self) -> None:
        for service in self.services.values():
            service.let_up()
            service.signal(signal.SIGCONT)
        self.network.mend()
        self.disk.make_room()
        self.bring_database_back()
        until(self.redis_answers, "The return of Redis")

    def _on_database(self, statement: str) -> None:
        if self._database:
            with self._postgres() as connection:
                connection.execute(statement.format(self._database))

    def worker_pids(self) -> list[int]:
        return [self.services[name].pid for name in WORKERS]

    def worker_of(self, pid: int) -> Service | None:
        return next((self.services[name] for name in WORKERS if self.services[name].pid == pid), None)

    def _address(self, worker: str) -> str:
        """Where agents find it: at the other end of the network."""
        return f"127.0.0.1:{self.network.ports[self.grpc_ports[worker]]}"

    def web_answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/api/v1/health", timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def redis_answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.environment["REDIS_URL"]) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @staticmethod
    def _worker_command() -> list[str]:
        return [sys.executable, "-m", "celery", "-A", "fedui", "worker", "-Q", "aggregation,default", "--pool", "threads",
                "--concurrency", "8", "--without-gossip", "--without-mingle"]  # fmt: skip

    def _start_redis(self) -> None:
        socket_path = self._sockets / "redis.sock"
        options = {
            "port": "0",
            "unixsocket": str(socket_path),
            "save": "",
            "appendonly": "no",
            "dir": str(self._sockets),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._start("redis", [server_program(), *arguments])

        until(self.redis_answers, "The start of Redis")

    def _start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        log = self.folder / "log" / f"{name}.log"
        self.services[name] = Service(name, command, environment or self.environment, log)

    def _postgres(self) -> psycopg.Connection:
        return psycopg.connect(POSTGRES.replace("postgres://", "postgresql://"), autocommit=True)

    def _database_url(self) -> dict[str, str]:
        return {"DATABASE_URL": f"{POSTGRES.rpartition('/')[0]}/{self._database}"} if self._database else {}

    @staticmethod
    def _clean_environment() -> dict[str, str]:
        ours = ("FEDUI_", "FEDAGENT_", "DJANGO_", "REDIS_", "DATABASE_")
        return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
