"""Keys and certificates, for enrolment and diagnosis."""

from __future__ import annotations

import base64
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from client_agent.identity import Identity


def new_key() -> ec.EllipticCurvePrivateKey:
    """P-256: gRPC's TLS takes no Ed25519 certificates."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """Raises `ValueError` for a name that no certificate can hold."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def fingerprint(ca: x509.Certificate) -> str:
    """SHA-256 of the CA's public key (SubjectPublicKeyInfo), base64url without padding."""
    der = ca.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def certificate_of(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate_pem)


def key_matches_certificate(identity: Identity) -> bool:
    key = serialization.load_pem_private_key(identity.key_pem, password=None)
    return key.public_key() == certificate_of(identity).public_key()
