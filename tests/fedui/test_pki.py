"""The certificate authority, and what it signs."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pytest_django import Settings

from fedui.clients import authorities, pki
from fedui.clients.authorities import trust
from fedui.clients.models import Client
from fedui.federations.models import Federation
from tests.support.domain import a_client, a_csr


@pytest.fixture
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.PKI_DIR = tmp_path / "pki"
    return tmp_path / "pki"


@pytest.fixture
def client_row(federation: Federation) -> Client:
    return a_client(federation, "hosp-1")


def issued(csr_pem: str, client: Client) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pki.issue_client_certificate(csr_pem, client).pem.encode())


def test_the_authority_is_made_once_and_only_we_can_read_its_key(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate(trust().bundle_pem)

    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=3600)
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert trust().bundle_pem == (folder / "ca.pem").read_bytes()


def test_processes_that_start_together_share_one_authority(folder: Path) -> None:
    make = partial(authorities._trust_in.__wrapped__, stamp=None)  # without the cache, which processes don't share
    with ThreadPoolExecutor(8) as pool:
        fingerprints = {found.issuer.fingerprint for found in pool.map(make, [folder] * 16)}

    assert len(fingerprints) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["pki"]


def test_the_fingerprint_is_that_of_the_public_key(folder: Path) -> None:
    public_key = x509.load_pem_x509_certificate(trust().bundle_pem).public_key()
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    expected = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode()
    assert trust().issuer.fingerprint == expected.rstrip("=")
    assert len(trust().issuer.fingerprint) == 43


def test_a_client_certificate_says_who_and_for_what(client_row: Client, settings: Settings) -> None:
    settings.CLIENT_CERTIFICATE_HOURS = 7
    key = ec.generate_private_key(ec.SECP256R1())

    certificate = issued(a_csr(key), client_row)

    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == "CN=hosp-1"
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"fedui:client:{client_row.pk}"]
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    purposes = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert purposes == [ExtendedKeyUsageOID.CLIENT_AUTH]
    begun = datetime.now(UTC) - certificate.not_valid_before_utc
    assert timedelta(hours=0.7) <= begun < timedelta(hours=0.7, minutes=1)
    assert certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(hours=7)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(trust().bundle_pem))


def test_a_client_certificate_is_recorded(client_row: Client) -> None:
    certificate = issued(a_csr(), client_row)

    recorded = client_row.certificates.get(serial=format(certificate.serial_number, "x"))
    assert recorded.not_after == certificate.not_valid_after_utc
    assert recorded.revoked_at is None
    assert len(recorded.fingerprint) == 64


def test_what_a_request_says_beside_its_key_is_ignored(client_row: Client) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    someone_else = x509.UniformResourceIdentifier("fedui:client:00000000-0000-0000-0000-000000000000")
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")]))
        .add_extension(x509.SubjectAlternativeName([someone_else]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True)
        .sign(key, hashes.SHA256())
    )

    certificate = issued(request.public_bytes(serialization.Encoding.PEM).decode(), client_row)

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    purposes = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"fedui:client:{client_row.pk}"]
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert purposes == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert "somebody" not in certificate.subject.rfc4514_string()


def with_other_key(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, digest)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def with_broken_signature() -> str:
    der = bytearray(x509.load_pem_x509_csr(a_csr().encode()).public_bytes(serialization.Encoding.DER))
    der[der.index(b"whatever")] ^= 1  # the subject: still readable, no longer what was signed
    return x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("csr_pem", "reason"),
    [
        ("", "can't be read"),
        ("garbage", "can't be read"),
        (a_csr().replace("A", "B", 20), "can't be read"),
        ("x" * 20_000, "more than"),
        (with_other_key(rsa.generate_private_key(65537, 2048)), "not for a P-256 key"),
        (with_other_key(ec.generate_private_key(ec.SECP384R1())), "not for a P-256 key"),
        (with_other_key(ed25519.Ed25519PrivateKey.generate()), "not for a P-256 key"),
        (with_broken_signature(), "signature .* is wrong"),
    ],
    ids=["empty", "garbage", "damaged", "too long", "RSA", "P-384", "Ed25519", "bad signature"],
)
def test_a_bad_request_is_refused(client_row: Client, csr_pem: str, reason: str) -> None:
    before = client_row.certificates.count()

    with pytest.raises(pki.SigningRequestRefused, match=reason) as caught:
        pki.issue_client_certificate(csr_pem, client_row)

    assert "fedagent enroll" in caught.value.hint
    assert client_row.certificates.count() == before


def test_a_server_certificate_has_the_hosts_that_agents_use(folder: Path) -> None:
    key_pem, certificate_pem = pki.issue_server_certificate(["fedui.example.org", "127.0.0.1", "::1"])

    certificate = x509.load_pem_x509_certificate(certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    purposes = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    key = serialization.load_pem_private_key(key_pem, password=None)
    assert names.get_values_for_type(x509.DNSName) == ["fedui.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert purposes == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(trust().bundle_pem))
