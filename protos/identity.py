"""What agent and server say alike of keys: how a fingerprint is read aloud, and what proves the possession of an old key."""

from __future__ import annotations

_PROOF = b"FedUI re-enrolment 1"


def proof_message(token_id: str, new_key: bytes) -> bytes:
    """What the old key signs when a machine enrols again: good for this token and this new key (SubjectPublicKeyInfo, DER) alone."""
    return b"\0".join([_PROOF, token_id.encode(), new_key])


def spaced(fingerprint: str) -> str:
    """A hexadecimal fingerprint in groups of four, for people who compare two."""
    return " ".join(fingerprint[i : i + 4] for i in range(0, len(fingerprint), 4))
