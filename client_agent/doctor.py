"""What may keep this agent from working, each problem with its cure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import grpc

from client_agent import agent, hosting, proxy
from client_agent.certificates import certificate_of, key_matches_certificate
from client_agent.channel import open_channel
from client_agent.config import Settings
from client_agent.departures import Departures
from client_agent.enrolment import ca_address
from client_agent.errors import ConfigurationError, NotEnrolled
from client_agent.identity import Home, Identity
from client_agent.ledger import Ledger
from client_agent.owner import Owner
from client_agent.policy import Leave
from client_agent.sdk import Context
from client_agent.servers import Servers
from client_agent.state import AgentState
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc

TIMEOUT_SECONDS = 10.0
MAX_SKEW_SECONDS = 60.0
MIN_FREE_BYTES = 512 * 1024**2
ENROL_AGAIN = "Ask the federation's operator for a token, then: fedagent enroll URL --token T --force"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. `cure` is empty when all is well."""

    check: str
    detail: str
    cure: str = ""

    @property
    def ok(self) -> bool:
        return not self.cure


class _Problem(Exception):
    def __init__(self, detail: str, cure: str) -> None:
        super().__init__(detail)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class _Patient:
    home: Home
    identity: Identity
    settings: Settings


def examine(home: Home, settings: Settings) -> Iterator[Finding]:
    """All checks, in an order in which an early problem explains the later ones."""
    try:
        identity = home.load()
    except NotEnrolled as error:
        yield Finding("enrolment", str(error), ENROL_AGAIN.removesuffix(" --force"))
        return
    yield Finding("enrolment", f"{identity.enrolment.client_name} in {identity.enrolment.federation}")
    patient = _Patient(home, identity, settings)
    for name, check in _CHECKS.items():
        try:
            yield Finding(name, check(patient))
        except _Problem as problem:
            yield Finding(name, str(problem), problem.cure)


def _home_permissions(patient: _Patient) -> str:
    return _private(patient.home.path, 0o700)


def _key_permissions(patient: _Patient) -> str:
    return _private(patient.home.key_file, 0o600)


def _private(path: Path, mode: int) -> str:
    found = path.stat().st_mode & 0o777
    if found & 0o077 and os.name == "posix":
        raise _Problem(f"{path} is open to other users ({found:o})", f"chmod {mode:o} {path}")
    return f"{path} is yours alone"


def _certificate(patient: _Patient) -> str:
    certificate = certificate_of(patient.identity)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    now = datetime.now(UTC)
    if now < begin:
        raise _Problem(f"valid only from {_date(begin)}; here it is {_date(now)}", "Set this machine's clock (NTP).")
    if now >= end:
        raise _Problem(f"expired on {_date(end)}", ENROL_AGAIN)
    if end - now < (end - begin) / 10:
        raise _Problem(f"expires soon, on {_date(end)}", "Let the agent run: it renews the certificate by itself.")
    return f"valid until {_date(end)}"


def _key_pair(patient: _Patient) -> str:
    try:
        matches = key_matches_certificate(patient.identity)
    except ValueError as error:
        raise _Problem(f"the key can't be read: {error}", ENROL_AGAIN) from error
    if not matches:
        raise _Problem("the key is not that of the certificate", ENROL_AGAIN)
    return "the key is that of the certificate"


def _clock(patient: _Patient) -> str:
    url = ca_address(patient.identity.enrolment.server_url)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            date = response.headers["Date"]
    except OSError as error:
        raise _Problem(
            f"no answer from {url}: {getattr(error, 'reason', error)}", "Check the network, and that the server runs."
        ) from error
    skew = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds() if date else 0.0
    if abs(skew) > MAX_SKEW_SECONDS:
        raise _Problem(f"{skew:+.0f} s away from the server's", "Set this machine's clock (NTP).")
    return "agrees with the server's"


def _network(patient: _Patient) -> str:
    """That the next hop is there: the server, or the proxy on the way to it."""
    servers = Servers(patient.home.servers_file, patient.identity.grpc_address).all
    for server in servers[:-1]:
        with contextlib.suppress(_Problem):
            return _reach(server)
    return _reach(servers[-1])


def _reach(server: str) -> str:
    address = proxy.next_hop(server, os.environ)
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_SECONDS):
            through = f", a proxy on the way to {server}" if address != server else ""
            return f"{address} accepts connections{through}"
    except socket.gaierror as error:
        raise _Problem(f"{host} has no address: {error.strerror}", "Check the DNS, or the server's address.") from error
    except (OSError, ValueError) as error:
        raise _Problem(
            f"{address} can't be reached: {error}",
            "Check that the server runs, and let the firewall pass it (outbound).",
        ) from error


def _stream(patient: _Patient) -> str:
    if AgentState.read(patient.home.state_file).connected:
        return "the running agent is connected"  # A second stream of the same client would push it out.
    try:
        answer = asyncio.run(_greet_one_of(patient))
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        detail = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.aio.AioRpcError) else "no answer"
        raise _Problem(
            detail, "Check the certificate and the clock above; else ask the operator for the server's log."
        ) from error
    if answer.HasField("goodbye"):
        raise _Problem(f"the server refused: {answer.goodbye.reason}", "Ask the federation's operator.")
    return f"welcomed as {answer.welcome.client_name}"


async def _greet_one_of(patient: _Patient) -> fleet_pb2.ServerMessage:
    """Of several servers one serves."""
    servers = Servers(patient.home.servers_file, patient.identity.grpc_address).all
    for server in servers[:-1]:
        with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
            return await _greet(patient, server)
    return await _greet(patient, servers[-1])


async def _greet(patient: _Patient, server: str) -> fleet_pb2.ServerMessage:
    """The server's answer to a Hello that offers no app, so that no task comes of it."""
    federation = patient.identity.enrolment.federation
    departures = Departures(Ledger(patient.home.log_file), Leave, federation)
    async with asyncio.timeout(TIMEOUT_SECONDS), open_channel(replace(patient.identity, server=server)) as channel:
        greeting = await departures.hello(agent.hello({}))
        stream = fleet_pb2_grpc.FleetStub(channel).Connect()
        await stream.write(greeting)
        answer = await stream.read()
        answer = answer if isinstance(answer, fleet_pb2.ServerMessage) else fleet_pb2.ServerMessage()
        if answer.HasField("welcome"):
            leaving = fleet_pb2.AgentMessage(heartbeat=fleet_pb2.Heartbeat(leaving=True))
            await stream.write(await departures.message(leaving))
            await stream.done_writing()
        departures.close()
        return answer


def _apps(patient: _Patient) -> str:
    context = Context(patient.identity.enrolment.client_name, patient.settings.set)
    try:
        apps = hosting.host_all(patient.settings.app, context, more=hosting.flower_apps(patient.settings))
    except ConfigurationError as error:
        raise _Problem(str(error), "Check --app and --set, and that the app's package is installed.") from error
    return ", ".join(f"{name} {version}" for name, version in apps)


def _policy(patient: _Patient) -> str:
    owner = Owner(patient.home, patient.identity.enrolment.federation, patient.settings.policy)
    try:
        owner.policy()
    except ConfigurationError as error:
        raise _Problem(str(error), "Mend it with: fedagent policy check") from error
    return owner.unavailable() or "tasks are taken"


def _disk(patient: _Patient) -> str:
    free = shutil.disk_usage(patient.home.path).free
    if free < MIN_FREE_BYTES:
        raise _Problem(f"only {free / 1024**2:,.0f} MiB free at {patient.home.path}", "Free some disk space.")
    return f"{free / 1024**3:,.1f} GiB free"


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


_CHECKS: dict[str, Callable[[_Patient], str]] = {
    "home folder": _home_permissions,
    "key file": _key_permissions,
    "certificate": _certificate,
    "key pair": _key_pair,
    "clock": _clock,
    "network": _network,
    "stream": _stream,
    "apps": _apps,
    "policy": _policy,
    "disk space": _disk,
}
