"""Who this agent is: its key, its certificate and where its server is, in the agent's home folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from client_agent.errors import CertificateExpired, ConfigurationError, NotEnrolled

BINARY: int = getattr(os, "O_BINARY", 0)
"""For `os.open`: Windows would write other line ends."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What the server told when it enrolled this client; stored as agent.json."""

    client_id: str
    client_name: str
    federation: str
    server_url: str
    grpc_address: str
    certificate_expires_at: str
    """ISO 8601. Kept here too, so that a running agent need not load `cryptography`, a tenth of its memory."""
    certificate_valid_from: str = ""
    """As above; empty in what older agents stored."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolment with its key pair. PEM bytes, as gRPC takes them."""

    enrolment: Enrolment
    key_pem: bytes
    certificate_pem: bytes
    ca_pem: bytes
    server: str = ""
    """Where the server is now, if not at the address of the enrolment."""

    @property
    def grpc_address(self) -> str:
        return self.server or self.enrolment.grpc_address

    def raise_if_expired(self) -> None:
        """A server only says "unavailable" to an expired certificate, so the agent looks at its own dates first."""
        expiry = datetime.fromisoformat(self.enrolment.certificate_expires_at)
        if expiry <= datetime.now(UTC):
            raise CertificateExpired(
                f"This client's certificate expired on {expiry:%Y-%m-%d %H:%M} UTC: the agent was not there to renew it. Ask "
                "the operator for a token and enrol again, which keeps the client: fedagent enroll URL --token T --force"
            )


@dataclass(frozen=True, slots=True)
class Pending:
    """An enrolment whose answer isn't here yet: the key must outlive this process, and be asked with again."""

    token_id: str
    name: str
    key_pem: bytes


class Home:
    """The agent's folder. Everything that makes up the identity is replaced at once or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings_file = path / "agent.toml"
        self.state_file = path / "state.json"
        self.policy_file = path / "policy.toml"
        self.pause_file = path / "paused.json"
        self.rounds_file = path / "rounds.json"
        self.log_file = path / "log.jsonl"
        self.servers_file = path / "servers.json"
        self.identity_folder = path / "identity"
        self.key_file = self.identity_folder / "key.pem"
        self._fresh = path / "identity.new"
        self._pending = path / "pending.json"

    @property
    def is_enrolled(self) -> bool:
        self._recover()
        return self.identity_folder.is_dir()

    def load(self) -> Identity:
        """Raises `NotEnrolled`, also for a folder that can't be read."""
        folder = self.identity_folder
        self._recover()
        try:
            return Identity(
                enrolment=Enrolment(**json.loads((folder / "agent.json").read_text())),
                key_pem=self.key_file.read_bytes(),
                certificate_pem=(folder / "certificate.pem").read_bytes(),
                ca_pem=(folder / "ca.pem").read_bytes(),
            )
        except FileNotFoundError:
            raise NotEnrolled(f"No enrolment in {self.path}. Begin with: fedagent enroll URL --token T") from None
        except (OSError, ValueError, TypeError) as error:
            raise NotEnrolled(
                f"The enrolment in {folder} can't be read ({error}). Enrol again with --force."
            ) from error

    def prepare(self) -> None:
        """Make the folder. Raises `ConfigurationError` if it can't be written, before a token is spent on it."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"{self.path} can't be written: {error.strerror}. Choose another --home."
            ) from error

    def save(self, identity: Identity) -> None:
        """Write beside the old identity, then rename: a crash leaves the old one or the new one. On return the new one is on disk."""
        self.prepare()
        stale = self.path / "identity.old"
        shutil.rmtree(self._fresh, ignore_errors=True)
        draft = self.path / "identity.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_private(draft / "key.pem", identity.key_pem)
        write_private(draft / "certificate.pem", identity.certificate_pem)
        write_private(draft / "ca.pem", identity.ca_pem)
        write_private(draft / "agent.json", json.dumps(asdict(identity.enrolment), indent=2).encode())
        sync_folder(draft)
        draft.rename(self._fresh)
        if self.identity_folder.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
            self.identity_folder.rename(stale)
        self._recover()
        sync_folder(self.path)
        shutil.rmtree(stale, ignore_errors=True)

    def _recover(self) -> None:
        """The second rename of `save`, which a crash may have kept from it: the new identity was whole by then."""
        if not self.identity_folder.is_dir():
            with contextlib.suppress(OSError):  # there is none, or another process was first
                self._fresh.rename(self.identity_folder)

    def pending(self) -> Pending | None:
        try:
            stored = json.loads(self._pending.read_text())
            return Pending(str(stored["token_id"]), str(stored["name"]), str(stored["key_pem"]).encode())
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_pending(self, pending: Pending) -> None:
        self.prepare()
        replace_private(self._pending, json.dumps(asdict(pending) | {"key_pem": pending.key_pem.decode()}).encode())

    def drop_pending(self) -> None:
        self._pending.unlink(missing_ok=True)


class Identities:
    """The identity as it is now: a renewal replaces it while the agent runs."""

    def __init__(self, home: Home, identity: Identity) -> None:
        self._home = home
        self.current = identity

    def replace(self, identity: Identity) -> None:
        """Stored before it is used: what the server certified last must never be lost."""
        self._home.save(identity)
        self.current = replace(identity, server=self.current.server)

    def turn_to(self, server: str) -> None:
        """What is opened from now on goes to this address."""
        if server != self.current.grpc_address:
            self.current = replace(self.current, server=server)


@contextmanager
def private_file(path: Path, *, lasting: bool = True) -> Iterator[BinaryIO]:
    """A new file that only its owner can read, from the moment it exists, and that is on disk afterwards if it is to be `lasting`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        yield file
        if lasting:
            file.flush()
            os.fsync(file.fileno())


def write_private(path: Path, content: bytes) -> None:
    with private_file(path) as file:
        file.write(content)


@contextmanager
def replaced_private_file(path: Path, *, lasting: bool = True) -> Iterator[BinaryIO]:
    """As `private_file`; it takes the place of `path` when it is whole. A crash leaves the old file or the new one."""
    fresh = path.with_suffix(".new")
    try:
        with private_file(fresh, lasting=lasting) as file:
            yield file
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    if lasting:
        sync_folder(path.parent)


def replace_private(path: Path, content: bytes) -> None:
    with replaced_private_file(path) as file:
        file.write(content)


def newest_first(paths: Iterable[Path]) -> list[tuple[Path, os.stat_result]]:
    """With what the system says of each; what is gone by now is left out."""
    found = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.append((path, path.stat()))
    return sorted(found, key=lambda one: one[1].st_mtime, reverse=True)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


DEFAULT_HOME = Path.home() / ".fedagent"
