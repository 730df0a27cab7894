"""Keys and certificates, for enrolment and diagnosis."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from client_agent.identity import Enrolment, Identity
from protos.identity import proof_message, spaced


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


def spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def load_private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises `ValueError`."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")  # noqa: TRY004  # like what the loader raises
    return key


def key_fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """SHA-256 of the public key, hexadecimal, as operators see it."""
    return spaced(hashlib.sha256(spki(key.public_key())).hexdigest())


def fingerprint(ca: x509.Certificate) -> str:
    """SHA-256 of the CA's public key (SubjectPublicKeyInfo), base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(spki(ca.public_key())).digest()).rstrip(b"=").decode()


def vouched_for(pinned: str, bundle_pem: bytes, links_pem: bytes) -> list[x509.Certificate]:
    """Of the authorities in a bundle, the one with the fingerprint `pinned` and those that it has certified.

    During a rotation a server has two; only a signature tells that the other belongs to the one that is known.
    """
    authorities = x509.load_pem_x509_certificates(bundle_pem)
    links = x509.load_pem_x509_certificates(links_pem) if links_pem.strip() else []
    root = next((authority for authority in authorities if fingerprint(authority) == pinned), None)
    if root is None:
        return []
    certified = {spki(link.public_key()) for link in links if issued_by(link, root)}
    return [a for a in authorities if a == root or spki(a.public_key()) in certified]


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def identity_with(
    enrolment: Enrolment,
    key: ec.EllipticCurvePrivateKey,
    certificate_pem: bytes,
    authorities: Sequence[x509.Certificate],
) -> Identity:
    """The identity that a certificate makes. Raises `ValueError` if it isn't for `key`, or from none of `authorities`."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    if not any(issued_by(certificate, authority) for authority in authorities):
        raise ValueError("the server's answer holds no certificate signed by its CA")
    if certificate.public_key() != key.public_key():
        raise ValueError("the server issued a certificate for another key than ours")
    dated = replace(
        enrolment,
        certificate_valid_from=certificate.not_valid_before_utc.isoformat(),
        certificate_expires_at=certificate.not_valid_after_utc.isoformat(),
    )
    ca_pem = b"".join(a.public_bytes(serialization.Encoding.PEM) for a in authorities)
    return Identity(dated, private_pem(key), certificate_pem, ca_pem)


def proof_of(identity: Identity, token_id: str, new_key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """Shows the server that this machine has the identity's key, for nothing else than this enrolment."""
    message = proof_message(token_id, spki(new_key.public_key()))
    signature = load_private(identity.key_pem).sign(message, ec.ECDSA(hashes.SHA256()))
    return {
        "certificate_pem": identity.certificate_pem.decode(),
        "signature": base64.b64encode(signature).decode(),
    }


def certificate_of(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificate(identity.certificate_pem)


def key_matches_certificate(identity: Identity) -> bool:
    key = serialization.load_pem_private_key(identity.key_pem, password=None)
    return key.public_key() == certificate_of(identity).public_key()
