"""The installation's certificate authorities. One issues; during a rotation another is trusted beside it.

A rotation has two steps and an overlap after each, so that nobody meets an authority before they have learned of it:
`begin` adds the next one to what is trusted, `switch` lets it issue, `finish` forgets the old one. What counts is the file
`rotation.json`, replaced at once: all processes look at it before each use.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.conf import settings

from fedui.errors import DomainError, ErrorCode

CA_LIFE = timedelta(days=3650)
FIRST = "ca"


class Stage(StrEnum):
    STEADY = "steady"
    BEGUN = "begun"
    SWITCHED = "switched"


class RotationRefused(DomainError):
    """A step of a rotation at the wrong time."""

    code = ErrorCode.ILLEGAL_TRANSITION


@dataclass(frozen=True, slots=True)
class Authority:
    name: str
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key (SubjectPublicKeyInfo, DER) as 43 characters of base64url."""
        return base64.urlsafe_b64encode(hashlib.sha256(spki(self.key.public_key())).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Trust:
    """Who issues, and who is trusted. `other` is the next authority after `begin`, the former one after `switch`."""

    issuer: Authority
    other: Authority | None
    stage: Stage
    since: datetime | None
    links_pem: bytes
    """Each of the two certified by the other, for an agent that knows only one of them."""

    @property
    def bundle_pem(self) -> bytes:
        """The issuer first: agents of protocol 1.1 read no further."""
        return self.issuer.pem + (self.other.pem if self.other else b"")


def trust() -> Trust:
    """As it is now; the first authority is made at its first use."""
    folder = Path(settings.PKI_DIR)
    return _trust_in(folder, _stamp(folder))


def begin() -> Trust:
    """Make the next authority, and have it trusted."""
    current = _at(Stage.STEADY, "A rotation is under way already.")
    name = f"{FIRST}-{int(current.issuer.name.removeprefix(FIRST).lstrip('-') or 1) + 1}"
    following = _make_authority(Path(settings.PKI_DIR), name)
    links = _link(following, by=current.issuer) + _link(current.issuer, by=following)
    return _store(Stage.BEGUN, current.issuer.name, following.name, links)


def switch() -> Trust:
    """The next authority issues from now on; the former one stays trusted."""
    current = _at(Stage.BEGUN, "No rotation has begun, or it has been switched already.")
    assert current.other
    return _store(Stage.SWITCHED, current.other.name, current.issuer.name, current.links_pem)


def finish() -> Trust:
    """The former authority is trusted no longer, and its key is destroyed."""
    current = _at(Stage.SWITCHED, "There is no former authority to forget.")
    assert current.other
    finished = _store(Stage.STEADY, current.issuer.name, None, b"")
    (Path(settings.PKI_DIR) / f"{current.other.name}.key").unlink(missing_ok=True)
    return finished


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def spki(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
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


def _at(stage: Stage, otherwise: str) -> Trust:
    current = trust()
    if current.stage != stage:
        raise RotationRefused(otherwise, hint="`manage.py rotate_ca status` says what the next step is.")
    return current


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Changes with every step of a rotation; None before the first."""
    try:
        found = (folder / "rotation.json").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@lru_cache(maxsize=8)
def _trust_in(folder: Path, stamp: tuple[int, int] | None) -> Trust:
    if stamp is None:
        _make_first(folder)
        return Trust(_read(folder, FIRST), None, Stage.STEADY, None, b"")
    state: dict[str, Any] = json.loads((folder / "rotation.json").read_text())
    other = _read(folder, state["other"]) if state["other"] else None
    since = datetime.fromisoformat(state["since"])
    return Trust(_read(folder, state["issuer"]), other, Stage(state["stage"]), since, state["links_pem"].encode())


def _store(stage: Stage, issuer: str, other: str | None, links_pem: bytes) -> Trust:
    folder = Path(settings.PKI_DIR)
    since = datetime.now(UTC).isoformat()
    state = {"stage": stage, "issuer": issuer, "other": other, "since": since, "links_pem": links_pem.decode()}
    draft = folder / "rotation.json.tmp"
    draft.unlink(missing_ok=True)
    _write(draft, json.dumps(state, indent=2).encode(), 0o600)
    draft.replace(folder / "rotation.json")
    return trust()


def _read(folder: Path, name: str) -> Authority:
    key = serialization.load_pem_private_key((folder / f"{name}.key").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{folder / name}.key is not an elliptic curve key.")
    return Authority(name, key, x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes()))


def _make_first(folder: Path) -> None:
    """Key and certificate appear together, by renaming a folder that holds both: of several processes, one wins."""
    if (folder / f"{FIRST}.key").exists():
        return
    draft = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}.tmp")
    draft.mkdir(mode=0o700, parents=True)
    try:
        _make_authority(draft, FIRST)
        draft.rename(folder)
    except OSError:
        if not (folder / f"{FIRST}.key").exists():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _make_authority(folder: Path, name: str) -> Authority:
    """Of an attempt that was broken off nothing counts: no `rotation.json` names it."""
    key = ec.generate_private_key(ec.SECP256R1())
    # TLS libraries look an issuer up by its name: no two authorities may share one.
    common_name = "FedUI certificate authority" + ("" if name == FIRST else f" {name.removeprefix('ca-')}")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = _ca_certificate(key.public_key(), subject, key, subject)
    for suffix, content, mode in (
        ("key", key_pem(key), 0o600),
        ("pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644),
    ):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        _write(folder / f"{name}.{suffix}", content, mode)
    return Authority(name, key, certificate)


def _link(authority: Authority, *, by: Authority) -> bytes:
    """`authority`'s key under the signature of `by`: proof, to whoever trusts the one, that the other belongs to it."""
    public_key, subject = authority.key.public_key(), authority.certificate.subject
    link = _ca_certificate(public_key, subject, by.key, by.certificate.subject)
    return link.public_bytes(serialization.Encoding.PEM)


def _ca_certificate(
    public_key: ec.EllipticCurvePublicKey, subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: x509.Name
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
