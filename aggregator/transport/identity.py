"""Who is calling: the client that the TLS certificate names, never one that a message names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import grpc
from cryptography import x509
from grpc import aio

from aggregator.ports import ClientIdentity, ClientRefused, ClientRegistry

logger = logging.getLogger(__name__)

URI_PREFIX = "fedui:client:"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    client_id: str
    serial: str
    not_after: datetime


@lru_cache(maxsize=4096)
def _parse(pem: bytes) -> PeerCertificate | None:
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    ids = [uri.removeprefix(URI_PREFIX) for uri in uris if uri.startswith(URI_PREFIX)]
    if len(ids) != 1:
        return None
    return PeerCertificate(ids[0], format(certificate.serial_number, "x"), certificate.not_valid_after_utc)


def peer_certificate(context: aio.ServicerContext[Any, Any]) -> PeerCertificate | None:
    """As TLS has verified it; None for one that names no client."""
    pems = context.auth_context().get("x509_pem_cert", [])
    return _parse(bytes(next(iter(pems)))) if pems else None


async def authenticate(
    registry: ClientRegistry,
    context: aio.ServicerContext[Any, Any],
    known: Callable[[PeerCertificate], ClientIdentity | None] = lambda certificate: None,
) -> tuple[ClientIdentity, PeerCertificate]:
    """The calling client. Aborts the call for one that may not connect. The registry isn't asked about one that is `known`."""
    certificate = peer_certificate(context)
    if certificate is None:
        logger.info("Refused: the certificate names no client", extra={"peer": context.peer()})
        await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "The certificate names no client of FedUI.")
    if certificate.not_after <= datetime.now(UTC):  # TLS looked when the connection was made, which may be long ago
        logger.info("Client refused: its certificate has expired", extra={"client_id": certificate.client_id})
        await refuse(context, grpc.StatusCode.UNAUTHENTICATED, "The certificate has expired.")
    if client := known(certificate):
        return client, certificate
    try:
        return await registry.authenticate(certificate.client_id, certificate.serial), certificate
    except ClientRefused as refusal:
        logger.info("Client refused: %s", refusal, extra={"client_id": certificate.client_id})
        # An agent tries again after the one, and ends by the other.
        code = grpc.StatusCode.UNAUTHENTICATED if refusal.for_good else grpc.StatusCode.PERMISSION_DENIED
        await refuse(context, code, str(refusal))


async def refuse(context: aio.ServicerContext[Any, Any], code: grpc.StatusCode, reason: str) -> NoReturn:
    await context.abort(code, reason)
    raise AssertionError("abort does not return")
