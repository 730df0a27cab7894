"""Certificates for tests: a CA, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client_agent.certificates import fingerprint, private_pem
from client_agent.identity import Enrolment, Identity


class Authority:
    """A certificate authority for one test."""

    def __init__(self, name: str = "Test CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key.public_key(), timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def token(self) -> str:
        return f"fle_{'a' * 10}.{'s' * 43}.{fingerprint(self.certificate)}"

    def certify(self, public_key: ec.EllipticCurvePublicKey, name: str, life: timedelta = timedelta(hours=1)) -> bytes:
        """A certificate, good for servers on loopback and for clients, in PEM."""
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, public_key, life)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def vouch_for(self, other: Authority) -> bytes:
        """Its key under our signature."""
        builder = self._builder(other.name, other.key.public_key(), timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def server_credentials(self) -> tuple[bytes, bytes]:
        """Key and certificate, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        return private_pem(key), self.certify(key.public_key(), "server")

    def identity(
        self, grpc_address: str, server_url: str = "http://127.0.0.1:1", life: timedelta = timedelta(hours=1)
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.certify(key.public_key(), "site-1", life)
        dates = x509.load_pem_x509_certificate(certificate)
        begin, end = dates.not_valid_before_utc.isoformat(), dates.not_valid_after_utc.isoformat()
        enrolment = Enrolment("c-1", "site-1", "tests", server_url, grpc_address, end, begin)
        return Identity(enrolment, private_pem(key), certificate, self.pem)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + life) - timedelta(minutes=10))
            .not_valid_after(now + life)
        )
