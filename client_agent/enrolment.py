"""Enrolment: a token and a signing request go to the server, a certificate for a key that never leaves comes back."""

from __future__ import annotations

import ipaddress
import json
import platform
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

import client_agent
from client_agent.certificates import fingerprint, new_key, private_pem, signing_request
from client_agent.errors import EnrolmentError, FalseServer, MalformedToken, ServerUnreachable
from client_agent.identity import Enrolment, Identity

TIMEOUT_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024**2

_TOKEN = re.compile(r"fle_([a-z0-9]{10})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """What an operator hands out. The fingerprint lets the agent tell a false server before it shows the secret."""

    text: str
    fingerprint: str

    @classmethod
    def parse(cls, text: str) -> Token:
        match = _TOKEN.fullmatch(text.strip())
        if not match:
            raise MalformedToken(
                "This is not an enrolment token. One looks like fle_<10 characters>.<43>.<43>: copy the whole of it."
            )
        return cls(match[0], match[3])


def enrol(
    url: str,
    token: Token,
    name: str,
    *,
    insecure_http: bool = False,
    leaving: Callable[[bytes], object] = lambda content: None,
) -> Identity:
    """A new identity from the server at `url`. Raises `EnrolmentError`; nothing is stored here.

    `leaving` is called with what is about to be sent, the token in it.
    """
    url = _checked_url(url, insecure_http)
    key = new_key()
    try:
        request = signing_request(key, name)
    except ValueError as error:
        raise EnrolmentError(f"A client's name has 1 to 64 characters: {error}") from error
    ca_pem = _fetch_ca(url, token)
    answer = _request(
        f"{url}/api/v1/enroll",
        {
            "token": token.text,
            "csr_pem": request.decode(),
            "name": name,
            "agent_version": client_agent.__version__,
            "platform": platform.platform(),
        },
        leaving,
    )
    return _identity(url, key, ca_pem, answer)


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


def _fetch_ca(url: str, token: Token) -> bytes:
    try:
        pem = str(_request(ca_address(url))["ca_pem"]).encode()
        found = fingerprint(x509.load_pem_x509_certificate(pem))
    except (KeyError, ValueError) as error:
        raise EnrolmentError(f"The server at {url} doesn't answer like FedUI. Is the address right?") from error
    if found != token.fingerprint:
        raise FalseServer(
            f"The server at {url} has another CA ({found}) than the one the token was made for ({token.fingerprint}). "
            "The token was not sent. Check the address, and that the token is from this server."
        )
    return pem


def _identity(url: str, key: ec.EllipticCurvePrivateKey, ca_pem: bytes, answer: dict[str, Any]) -> Identity:
    try:
        certificate_pem = str(answer["certificate_pem"]).encode()
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca_pem))
        enrolment = Enrolment(
            client_id=str(answer["client_id"]),
            client_name=str(answer["client_name"]),
            federation=str(answer["federation"]),
            server_url=url,
            grpc_address=str(answer["grpc_address"]),
            certificate_expires_at=certificate.not_valid_after_utc.isoformat(),
        )
    except (KeyError, ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError(f"The server's answer holds no certificate signed by its CA ({error!r}).") from error
    if certificate.public_key() != key.public_key():
        raise EnrolmentError("The server issued a certificate for another key than ours.")
    return Identity(enrolment, private_pem(key), certificate_pem, ca_pem)


def _request(
    url: str, body: dict[str, str] | None = None, leaving: Callable[[bytes], object] = lambda content: None
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
    except OSError as error:
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
