"""Requests to addresses that members name. Such an address must lead nowhere inside: not to this machine, nor to its neighbours.

The name is resolved once, each address that it has is checked, and the connection goes to one of those, with the name in TLS and in the
Host header; a name that changes its address meanwhile gains nothing. Redirects aren't followed, no proxy is asked.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from fedui.errors import DomainError, ErrorCode

RESOLVE_SECONDS = 5.0
CONNECT_SECONDS = 5.0
TOTAL_SECONDS = 10.0
"""From the connection to the last byte of the answer, however slowly it comes."""
MOST_BYTES = 16 * 1024
"""That are read of an answer."""
LONGEST_URL = 500

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_resolver = ThreadPoolExecutor(max_workers=4, thread_name_prefix="resolve")


class BadAddress(DomainError):
    """Not an address that a webhook may have."""

    code = ErrorCode.INVALID_REQUEST


class NotReached(Exception):
    """No answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    """Its beginning."""
    cut: bool
    """Whether there is more of it."""


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    path: str


def parse(url: str) -> Target:
    """Raises `BadAddress`."""
    hint = "Write it like https://hooks.example.org/fedui."
    if len(url) > LONGEST_URL or any(not 0x21 <= ord(character) <= 0x7E for character in url):
        raise BadAddress(f"An address has up to {LONGEST_URL} characters, all of them ASCII and no spaces.", hint=hint)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise BadAddress(f"The address can’t be read: {error}.", hint=hint) from None
    if parts.scheme != "https" or not host:
        raise BadAddress("A webhook has an https:// address.", hint=hint)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise BadAddress("User names, passwords and fragments have no place in a webhook’s address.", hint=hint)
    literal = _literal(host)
    if literal and not is_allowed(literal):
        raise BadAddress(f"{literal} is a private or reserved address.", hint=_HOW_TO_ALLOW)
    if not literal and (host == "localhost" or host.endswith(".localhost")) and not settings.WEBHOOK_NETWORKS:
        raise BadAddress(f"{host} is this server itself.", hint=_HOW_TO_ALLOW)
    return Target(host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


_HOW_TO_ALLOW = "The installation allows networks by FEDUI_WEBHOOK_NETWORKS."


def is_allowed(address: Address) -> bool:
    """Whether it is on the internet, or in a network that the installation allows."""
    inner = _inner(address)
    if any(inner.version == network.version and inner in network for network in settings.WEBHOOK_NETWORKS):
        return True
    of_a_site = (
        isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local
    )  # deprecated, and routed inside as before
    return inner.is_global and not inner.is_multicast and not inner.is_reserved and not of_a_site


def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Raises `BadAddress` or `NotReached`."""
    target = parse(url)
    addresses = resolve(target)
    connection = _Pinned(target, addresses[0])
    watch = threading.Timer(TOTAL_SECONDS, connection.abort)
    watch.daemon = True
    watch.start()
    try:
        connection.request("POST", target.path, body=body, headers=dict(headers))
        response = connection.getresponse()
        read = response.read(MOST_BYTES + 1)
        if connection.aborted:
            raise TimeoutError  # what was shut looks like an end
        return Answer(response.status, read[:MOST_BYTES], len(read) > MOST_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = f"no whole answer within {TOTAL_SECONDS:g} s"
        raise NotReached(late if connection.aborted else _why(error)) from error
    finally:
        watch.cancel()
        connection.close()


def resolve(target: Target) -> Sequence[Address]:
    """All addresses of the host, once each one was found allowed. Raises `NotReached`."""
    try:
        found = _resolver.submit(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM).result(
            RESOLVE_SECONDS
        )
    except (OSError, UnicodeError) as error:
        raise NotReached(f"{target.host} can’t be resolved: {_why(error)}") from error
    except FutureTimeout:
        raise NotReached(f"{target.host} was not resolved within {RESOLVE_SECONDS:g} s") from None
    addresses = [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]
    for address in addresses:
        if not is_allowed(address):
            raise NotReached(f"{target.host} resolves to {address}, a private or reserved address. {_HOW_TO_ALLOW}")
    return addresses


class _Pinned(http.client.HTTPSConnection):
    """A connection to one address, for the name that it was found under."""

    def __init__(self, target: Target, address: Address) -> None:
        self._secure = _context()
        super().__init__(target.host, target.port, timeout=CONNECT_SECONDS, context=self._secure)
        self._address = str(address)
        self._lock = threading.Lock()
        self.aborted = False

    def connect(self) -> None:
        raw = socket.create_connection((self._address, self.port), timeout=CONNECT_SECONDS)
        self.sock = self._secure.wrap_socket(raw, server_hostname=self.host, do_handshake_on_connect=False)
        self._hold(self.sock)
        self.sock.do_handshake()
        self.sock.settimeout(TOTAL_SECONDS)

    def _hold(self, sock: socket.socket) -> None:
        """What `abort` shuts; it may have come before there was anything to shut."""
        with self._lock:
            self._held = sock
            if self.aborted:
                raise TimeoutError

    def abort(self) -> None:
        """From another thread: whatever waits on the socket is woken."""
        with self._lock:
            self.aborted = True
            if held := getattr(self, "_held", None):
                _shut(held)


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS, whose state is the other thread's


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.WEBHOOK_CA_FILE:
        context.load_verify_locations(settings.WEBHOOK_CA_FILE)
    return context


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _inner(address: Address) -> Address:
    """Of an IPv6 address that stands for one of IPv4, that one."""
    if isinstance(address, ipaddress.IPv6Address):
        teredo = address.teredo
        wrapped = address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
        if wrapped is None and address in _NAT64:
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return wrapped or address
    return address


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate isn’t trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"the answer isn’t HTTP ({type(error).__name__})"
