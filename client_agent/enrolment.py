"""Enrolment: a token and a signing request go to the server, a certificate for a key that never leaves comes back."""

from __future__ import annotations

import http.client
import ipaddress
import json
import platform
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

import client_agent
from client_agent.certificates import (
    fingerprint,
    identity_with,
    key_fingerprint,
    load_private,
    new_key,
    private_pem,
    proof_of,
    signing_request,
    vouched_for,
)
from client_agent.errors import EnrolmentError, FalseServer, MalformedToken, NotEnrolled, ServerUnreachable
from client_agent.identity import Enrolment, Home, Identity, Pending
from client_agent.servers import Servers

TIMEOUT_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024**2

_TOKEN = re.compile(r"fle_([a-z0-9]{10})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """What an operator hands out. The fingerprint lets the agent tell a false server before it shows the secret."""

    text: str
    key_id: str
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> Token:
        match = _TOKEN.fullmatch(text.strip())
        if not match:
            raise MalformedToken(
                "This is not an enrolment token. One looks like fle_<10 characters>.<43>.<43>: copy the whole of it."
            )
        return cls(match[0], match[1], match[3])


@dataclass(frozen=True, slots=True)
class Waiting:
    """An operator has to admit this client. They compare the fingerprint with the one that they see."""

    federation: str
    key_fingerprint: str


def enrol(
    url: str,
    token: Token,
    name: str,
    home: Home,
    *,
    insecure_http: bool = False,
    on_waiting: Callable[[Waiting], None] = lambda waiting: None,
    leaving: Callable[[bytes], object] = lambda content: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Identity:
    """A new identity from the server at `url`, which `home` keeps. Raises `EnrolmentError`.

    Called again after it was broken off it goes on with the same key, so that no use of the token is lost. A machine that was
    enrolled before shows its old key, and stays the client that it was. `leaving` is called with what is about to be sent, the
    token in it.
    """
    url = _checked_url(url, insecure_http)
    pending = _begun(home, token, name)
    key = load_private(pending.key_pem)
    authorities = _fetch_authorities(url, token)
    answer = _ask(url, token, key, pending.name, _former(home, url, authorities), leaving)
    if "certificate_pem" not in answer:
        on_waiting(Waiting(str(answer.get("federation", "")), key_fingerprint(key)))
    try:
        while "certificate_pem" not in answer:
            sleep(_pause(answer))
            answer = _ask_again(url, answer)
    except EnrolmentError:
        home.drop_pending()
        raise
    # Again: during the wait a rotation may have brought an authority that issued the certificate, or soon will.
    identity = _identity(url, key, _fetch_authorities(url, token), answer)
    home.save(identity)
    named = answer.get("servers")
    Servers(home.servers_file, identity.grpc_address).learn(named if isinstance(named, list) else ())
    home.drop_pending()
    return identity


def _begun(home: Home, token: Token, name: str) -> Pending:
    """The key and the name to enrol with: those of an attempt with this token that was broken off, or new ones, stored first."""
    pending = home.pending()
    if pending is None or (pending.token_id, pending.name) != (token.key_id, name):
        pending = Pending(token.key_id, name, private_pem(new_key()))
    _signing_request(load_private(pending.key_pem), name)
    home.keep_pending(pending)
    return pending


def _signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    try:
        return signing_request(key, name).decode()
    except ValueError as error:
        raise EnrolmentError(f"A client's name has 1 to 64 characters: {error}") from error


def _former(home: Home, url: str, authorities: list[x509.Certificate]) -> Identity | None:
    """What this machine was enrolled as, if it was with the server of this enrolment."""
    if not home.is_enrolled:
        return None
    try:
        former = home.load()
        known = x509.load_pem_x509_certificates(former.ca_pem)
    except (NotEnrolled, ValueError):
        return None
    return former if former.enrolment.server_url == url or set(known) & set(authorities) else None


def _ask(
    url: str,
    token: Token,
    key: ec.EllipticCurvePrivateKey,
    name: str,
    former: Identity | None,
    leaving: Callable[[bytes], object],
) -> dict[str, Any]:
    body: dict[str, Any] = {
        "token": token.text,
        "csr_pem": _signing_request(key, name),
        "name": name,
        "host": platform.node(),
        "agent_version": client_agent.__version__,
        "platform": platform.platform(),
    }
    if former:
        body["proof"] = proof_of(former, token.key_id, key)
    return _request(f"{url}/api/v1/enroll", body, leaving)


def _ask_again(url: str, waiting: dict[str, Any]) -> dict[str, Any]:
    """A server that is away, or asks for patience, has not refused."""
    try:
        return _request(f"{url}/api/v1/enroll/{waiting['admission']}")
    except EnrolmentError as error:
        if error.retryable or error.code == "throttled":
            return waiting
        raise
    except KeyError as error:
        raise EnrolmentError(f"{url} doesn't answer like FedUI. Is the address right?") from error


def _pause(waiting: dict[str, Any]) -> float:
    try:
        return min(60.0, max(1.0, float(waiting["ask_again_seconds"])))
    except (KeyError, TypeError, ValueError):
        return 5.0


def ca_address(url: str) -> str:
    return f"{url}/api/v1/ca"


def _checked_url(url: str, insecure_http: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EnrolmentError(f"{url!r} is not the address of a server, for example https://fedui.example.org.")
    if parts.scheme == "http" and not insecure_http and not _is_loopback(parts.hostname):
        raise EnrolmentError(
            f"{url} is plain HTTP, on which others could read the token. Use https, or --insecure-http on a network "
            "that you trust."
        )
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fetch_authorities(url: str, token: Token) -> list[x509.Certificate]:
    try:
        answer = _request(ca_address(url))
        bundle, links = str(answer["ca_pem"]).encode(), str(answer.get("links_pem", "")).encode()
        authorities = vouched_for(token.fingerprint, bundle, links)
        found = fingerprint(x509.load_pem_x509_certificate(bundle))
    except (KeyError, ValueError) as error:
        raise EnrolmentError(f"The server at {url} doesn't answer like FedUI. Is the address right?") from error
    if not authorities:
        raise FalseServer(
            f"The server at {url} has another CA ({found}) than the one the token was made for ({token.fingerprint}). "
            "The token was not sent. Check the address, and that the token is from this server."
        )
    return authorities


def _identity(
    url: str, key: ec.EllipticCurvePrivateKey, authorities: list[x509.Certificate], answer: dict[str, Any]
) -> Identity:
    try:
        enrolment = Enrolment(
            client_id=str(answer["client_id"]),
            client_name=str(answer["client_name"]),
            federation=str(answer["federation"]),
            server_url=url,
            grpc_address=str(answer["grpc_address"]),
            certificate_expires_at="",
        )
        return identity_with(enrolment, key, str(answer["certificate_pem"]).encode(), authorities)
    except KeyError as error:
        raise EnrolmentError(f"The server's answer lacks {error}. Is the address right?") from error
    except ValueError as error:
        raise EnrolmentError(f"This is no identity to trust: {error}.") from error


def _request(
    url: str, body: dict[str, Any] | None = None, leaving: Callable[[bytes], object] = lambda content: None
) -> dict[str, Any]:
    """GET, or POST of a JSON body; the JSON answer. Raises `EnrolmentError` with what the server said."""
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        leaving(data)
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return _json_object(response.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error) from error
    except http.client.InvalidURL as error:
        raise EnrolmentError(f"{url!r} is not an address: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ServerUnreachable(f"No answer from {url}: {getattr(error, 'reason', error)}") from error
    except ValueError as error:
        raise EnrolmentError(f"{url} doesn't answer like FedUI. Is the address right?") from error


def _refusal(url: str, error: urllib.error.HTTPError) -> EnrolmentError:
    """The problem document (RFC 9457) that the server sent, in words."""
    if error.code >= 500:
        return ServerUnreachable(f"The server failed on {url} (HTTP {error.code}). Try again later.")
    try:
        problem = _json_object(error.read(MAX_ANSWER_BYTES))
    except (OSError, ValueError):
        problem = {}
    detail = str(problem.get("detail") or problem.get("title") or f"{url} answered HTTP {error.code}.")
    return EnrolmentError(f"{detail} {problem.get('hint', '')}".strip(), code=str(problem.get("code", "")))


def _json_object(content: bytes) -> dict[str, Any]:
    answer = json.loads(content)
    if not isinstance(answer, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # like what json.loads raises
    return answer
