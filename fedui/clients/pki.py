"""Certificates of the installation's own authority: what agents pin, and what signs both ends of every gRPC connection."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings
from django.utils import timezone

from fedui.clients.authorities import Authority, key_pem, key_usage, spki, trust
from fedui.clients.models import Certificate, Client
from fedui.errors import DomainError, ErrorCode
from protos.limits import MAX_CSR_BYTES

CLIENT_URI = "fedui:client:"
"""A client's certificate names it by this prefix and its id, as URI in the subject alternative name."""
SERVER_LIFE = timedelta(days=90)
CLOCK_SKEW = timedelta(hours=2)
"""Certificates begin this long ago, for agents whose clocks are behind; short-lived ones, a tenth of their life."""


class SigningRequestRefused(DomainError):
    """A certificate signing request that is unreadable, not self-signed, or for a key that is not P-256."""

    code = ErrorCode.CSR_INVALID

    def __init__(self, detail: str) -> None:
        super().__init__(detail, hint="Send a PEM request for a new P-256 key, as `fedagent enroll` does.")


def issue_client_certificate(csr_pem: str, client: Client) -> Certificate:
    """A certificate for `client` and the key in the request, recorded. Raises `SigningRequestRefused`.

    Of the request only the key counts: name, purpose and life are ours to say.
    """
    public_key = requested_key(csr_pem)
    now = timezone.now()
    certificate = _sign(
        trust().issuer,
        public_key,
        common_name=client.name,
        names=[x509.UniformResourceIdentifier(f"{CLIENT_URI}{client.pk}")],
        purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        now=now,
        life=client_life(),
    )
    return Certificate.objects.create(
        client=client,
        serial=format(certificate.serial_number, "x"),
        fingerprint=key_fingerprint(public_key),
        issued_at=now,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
    )


def client_life() -> timedelta:
    return timedelta(hours=settings.CLIENT_CERTIFICATE_HOURS)


def issue_server_certificate(hosts: Sequence[str]) -> tuple[bytes, bytes]:
    """Private key and certificate (PEM) for a gRPC server that agents reach as any of `hosts` (names or addresses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(
        trust().issuer,
        key.public_key(),
        common_name="FedUI aggregator",
        names=[_general_name(host) for host in hosts],
        purpose=ExtendedKeyUsageOID.SERVER_AUTH,
        now=datetime.now(UTC),
        life=SERVER_LIFE,
    )
    return key_pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request whose sender holds the private one. Raises `SigningRequestRefused`."""
    if len(csr_pem) > MAX_CSR_BYTES:
        raise SigningRequestRefused(f"The certificate signing request has more than {MAX_CSR_BYTES} bytes.")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        signed, public_key = request.is_signature_valid, request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SigningRequestRefused("The certificate signing request can't be read.") from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256R1):
        raise SigningRequestRefused("The certificate signing request is not for a P-256 key.")
    if not signed:
        raise SigningRequestRefused("The signature of the certificate signing request is wrong.")
    return public_key


def key_fingerprint(public_key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of SubjectPublicKeyInfo, hexadecimal."""
    return hashlib.sha256(spki(public_key)).hexdigest()


def _sign(
    issuer: Authority,
    public_key: ec.EllipticCurvePublicKey,
    *,
    common_name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    now: datetime,
    life: timedelta,
) -> x509.Certificate:
    """An end-entity certificate for TLS."""
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - min(CLOCK_SKEW, life / 10))
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(issuer.key, hashes.SHA256())
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
