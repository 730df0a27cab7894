"""The engine over the database in a process of its own: what it takes of memory is its alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import psutil
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection

from client_agent.certificates import new_key, private_pem, signing_request
from fedui.clients.admission import Applicant, enrol
from fedui.clients.authorities import trust
from fedui.clients.models import Client
from fedui.clients.services import create_token
from fedui.federations.models import Federation, Role

ROOT = Path(__file__).parent.parent.parent


class EngineProcess:
    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self._process, self.port, self._log = process, port, log

    def drive(self, run_id: int) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{run_id}\n")
        self._process.stdin.flush()

    @property
    def resident(self) -> int:
        """Bytes."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    @property
    def open_files(self) -> int:
        return psutil.Process(self._process.pid).num_fds()

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def engine_process(folder: Path) -> Iterator[EngineProcess]:
    """On the tests' database; `folder` holds its data, the keys of the authority among them."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "fedui.settings",
        "DATABASE_URL": _database_url(),
        "FEDUI_DATA_DIR": str(folder),
        "FEDUI_CHANNEL_LAYER": "memory",
        "FEDUI_GRPC_BIND": "127.0.0.1:0",
        "PYTHONPATH": str(ROOT),
    }
    log = folder / "engine.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.engine_program"],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        ) as process,
    ):  # fmt: skip
        assert process.stdout
        line = process.stdout.readline()
        assert line, log.read_text()
        try:
            yield EngineProcess(process, int(line), log)
        finally:
            process.terminate()


def _database_url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    place = f"{database['HOST'] or '127.0.0.1'}:{database['PORT'] or 5432}"
    return f"postgres://{database['USER'] or 'postgres'}@{place}/{database['NAME']}"


class EnrolledClients:
    """Stands where agents of tests expect an authority, and has certified each of them through the platform."""

    def __init__(self) -> None:
        self._identities: dict[str, tuple[bytes, bytes]] = {}

    @property
    def pem(self) -> bytes:
        return trust().bundle_pem

    def enrol(self, federation: Federation, name: str) -> str:
        """The client's id."""
        _, token = create_token(federation, federation.memberships.get(role=Role.OWNER).user)
        key: ec.EllipticCurvePrivateKey = new_key()
        admission = enrol(token, signing_request(key, name).decode(), Applicant(name))
        client: Client | None = admission.client
        assert client
        assert admission.certificate
        self._identities[str(client.pk)] = private_pem(key), admission.certificate.pem.encode()
        return str(client.pk)

    def client(self, client_id: str, life: timedelta = timedelta()) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.pem, *self._identities[client_id])
