"""API keys as text: `fedk_<id>_<secret><checksum>`.

The prefix and the checksum let a scanner of code and logs tell a leaked key from what looks like one, without asking the server:
`fedk_[a-z0-9]{10}_[A-Za-z0-9]{49}`, whose last 6 characters are the CRC-32 of all before, in base 62.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

PATTERN = r"fedk_([a-z0-9]{10})_([A-Za-z0-9]{43})([A-Za-z0-9]{6})"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class KeyText:
    key_id: str
    secret: str = field(repr=False)
    """43 characters of 62: 256 random bits. A slow hash would protect it no better."""

    @classmethod
    def new(cls) -> KeyText:
        key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(10))
        return cls(key_id, "".join(secrets.choice(_BASE62) for _ in range(43)))

    @classmethod
    def parse(cls, text: str) -> KeyText | None:
        """None if it is no key: mistyped, or cut off."""
        match = re.fullmatch(PATTERN, text)
        if not match:
            return None
        found = cls(match[1], match[2])
        return found if hmac.compare_digest(str(found), text) else None

    def __str__(self) -> str:
        body = f"fedk_{self.key_id}_{self.secret}"
        return body + _checksum(body)

    @property
    def secret_sha256(self) -> str:
        return hashlib.sha256(self.secret.encode()).hexdigest()


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits
