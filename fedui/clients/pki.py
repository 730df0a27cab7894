"""The installation's own certificate authority: what agents pin, and what signs both ends of every gRPC connection."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from django.conf import settings

from fedui.clients.models import Certificate, Client
from fedui.errors import DomainError, ErrorCode

CLIENT_URI = "fedui:client:"
"""A client's certificate names it by this prefix and its id, as URI in the subject alternative name."""
CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=90)
CLOCK_SKEW = timedelta(minutes=10)
"""Certificates begin this long ago, for agents whose clocks are behind."""
MAX_REQUEST_BYTES = 16 * 1024


class SigningRequestRefused(DomainError):
    """A certificate signing request that is unreadable, not self-signed, or for a key that is not P-256."""

    code = ErrorCode.CSR_INVALID

    def __init__(self, detail: str) -> None:
        super().__init__(detail, hint="Send a PEM request for a new P-256 key, as `fedagent enroll` does.")


@dataclass(frozen=True, slots=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key (SubjectPublicKeyInfo, DER) as 43 characters of base64url."""
        return base64.urlsafe_b64encode(hashlib.sha256(_spki(self.key.public_key())).digest()).rstrip(b"=").decode()


def authority() -> Authority:
    """The authority of this installation, made at its first use."""
    return _authority_in(Path(settings.PKI_DIR))


def ca_certificate_pem() -> bytes:
    return authority().pem


def fingerprint() -> str:
    return authority().fingerprint


def issue_client_certificate(csr_pem: str, client: Client) -> str:
    """A certificate for `client` and the key in the request, recorded. Raises `SigningRequestRefused`.

    Of the request only the key counts: name, purpose and life are ours to say.
    """
    public_key = _requested_key(csr_pem)
    uri = x509.UniformResourceIdentifier(f"{CLIENT_URI}{client.pk}")
    certificate = _sign(
        authority(),
        public_key,
        common_name=client.name,
        names=[uri],
        purpose=ExtendedKeyUsageOID.CLIENT_AUTH,
        life=timedelta(days=settings.CLIENT_CERTIFICATE_DAYS),
    )
    Certificate.objects.create(
        client=client,
        serial=format(certificate.serial_number, "x"),
        fingerprint=hashlib.sha256(_spki(public_key)).hexdigest(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def issue_server_certificate(hosts: Sequence[str]) -> tuple[bytes, bytes]:
    """Private key and certificate (PEM) for a gRPC server that agents reach as any of `hosts` (names or addresses)."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(
        authority(),
        key.public_key(),
        common_name="FedUI aggregator",
        names=[_general_name(host) for host in hosts],
        purpose=ExtendedKeyUsageOID.SERVER_AUTH,
        life=SERVER_LIFE,
    )
    return _key_pem(key), certificate.public_bytes(serialization.Encoding.PEM)


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > MAX_REQUEST_BYTES:
        raise SigningRequestRefused(f"The certificate signing request has more than {MAX_REQUEST_BYTES} bytes.")
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


def _sign(
    issuer: Authority,
    public_key: ec.EllipticCurvePublicKey,
    *,
    common_name: str,
    names: Sequence[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    life: timedelta,
) -> x509.Certificate:
    """An end-entity certificate for TLS."""
    now = datetime.now(UTC)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(issuer.key, hashes.SHA256())
    )


@lru_cache(maxsize=8)
def _authority_in(folder: Path) -> Authority:
    if not (folder / "ca.key").exists():
        _make_authority(folder)
    key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{folder / 'ca.key'} is not an elliptic curve key.")
    return Authority(key, x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()))


def _make_authority(folder: Path) -> None:
    """Key and certificate appear together, by renaming a folder that holds both: of several processes, one wins."""
    draft = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.tmp")
    draft.mkdir(mode=0o700, parents=True)
    try:
        key = ec.generate_private_key(ec.SECP256R1())
        _write(draft / "ca.key", _key_pem(key), 0o600)
        _write(draft / "ca.pem", _self_signed(key).public_bytes(serialization.Encoding.PEM), 0o644)
        draft.rename(folder)
    except OSError:
        if not (folder / "ca.key").exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    name = _name("FedUI certificate authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _spki(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
