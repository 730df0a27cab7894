"""A certificate authority for one test, that certifies servers on loopback and clients of FedUI."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.transport.identity import URI_PREFIX
from aggregator.transport.server import TLSMaterial

BACK_DATED = timedelta(minutes=-10)


class TestAuthority:
    __test__ = False

    def __init__(self, name: str = "Test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.last_serial = ""
        """Of the certificate that was issued last, hexadecimal."""
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        ca = self._builder(self._name, self._key.public_key(), timedelta(days=1))
        ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.pem = ca.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def server(self, begins: timedelta = BACK_DATED) -> TLSMaterial:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        key, certificate = self._certify("server", names, timedelta(days=2), begins)
        return TLSMaterial(key, certificate, self.pem)

    def client(
        self, client_id: str, life: timedelta = timedelta(hours=1), **options: timedelta
    ) -> grpc.ChannelCredentials:
        """`begins`: how long from now its certificate is good."""
        key, certificate = self.key_and_certificate(client_id, life, **options)
        return grpc.ssl_channel_credentials(self.pem, key, certificate)

    def naming(self, *names: x509.GeneralName) -> grpc.ChannelCredentials:
        """With a certificate for just these names, or for none."""
        key, certificate = self._certify("whoever", names, timedelta(hours=1))
        return grpc.ssl_channel_credentials(self.pem, key, certificate)

    def key_and_certificate(
        self, client_id: str, life: timedelta = timedelta(hours=1), begins: timedelta = BACK_DATED
    ) -> tuple[bytes, bytes]:
        """PEM."""
        return self._certify(client_id, [x509.UniformResourceIdentifier(f"{URI_PREFIX}{client_id}")], life, begins)

    def _certify(
        self, name: str, names: Sequence[x509.GeneralName], life: timedelta, begins: timedelta = BACK_DATED
    ) -> tuple[bytes, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), life, begins)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        self.last_serial = format(certificate.serial_number, "x")
        return private, certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta, begins: timedelta = BACK_DATED
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + life)
        )
