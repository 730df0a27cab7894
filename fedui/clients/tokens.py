"""Enrolment tokens as text: `fle_<id>.<secret>.<fingerprint of the CA>`.

The id finds the row, the secret proves the right, and the fingerprint lets the agent tell a false server before it
sends the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

from fedui.clients.models import EnrolmentToken
from fedui.errors import DomainError, ErrorCode

_FORMAT = re.compile(r"fle_([a-z0-9]{10})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")
_ID_ALPHABET = string.ascii_lowercase + string.digits


class TokenRefused(DomainError):
    """A token that does not, or no longer, give the right to enrol."""

    def __init__(self, code: ErrorCode, detail: str, *, hint: str) -> None:
        super().__init__(detail, hint=hint)
        self.code = code

    @classmethod
    def invalid(cls) -> TokenRefused:
        """The same for an unknown id and a wrong secret, so that ids can't be found out."""
        return cls(
            ErrorCode.TOKEN_INVALID,
            "This is not a valid enrolment token.",
            hint="Copy the whole token, from fle_ to its end, as it was shown when it was created.",
        )

    @classmethod
    def unusable(cls, token: EnrolmentToken) -> TokenRefused:
        """Why `token`, which is known and was proven, can't be used."""
        code, detail = {
            "revoked": (ErrorCode.TOKEN_REVOKED, f"{token} has been revoked."),
            "spent": (ErrorCode.TOKEN_SPENT, f"{token} has been used {token.uses} of {token.max_uses} times."),
            "expired": (ErrorCode.TOKEN_EXPIRED, f"{token} expired at {token.expires_at:%Y-%m-%d %H:%M} UTC."),
        }[token.state]
        return cls(code, detail, hint="Ask whoever runs the federation for a new token.")


class TokenThrottled(DomainError):
    """Somebody is guessing at the secret of a token. Its true holders aren't held up."""

    code = ErrorCode.THROTTLED

    def __init__(self, *, first: bool) -> None:
        """`first`: of this minute; the others are not worth a line in the audit log."""
        self.first = first
        super().__init__(
            "Too many wrong attempts with this token.", hint="Try again in a minute, with the whole token."
        )


@dataclass(frozen=True, slots=True)
class TokenText:
    key_id: str
    secret: str = field(repr=False)
    fingerprint: str

    @classmethod
    def new(cls, fingerprint: str) -> TokenText:
        key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(10))
        return cls(key_id, secrets.token_urlsafe(32), fingerprint)

    @classmethod
    def parse(cls, text: str) -> TokenText:
        """Raises `TokenRefused`."""
        match = _FORMAT.fullmatch(text.strip())
        if not match:
            raise TokenRefused.invalid()
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"fle_{self.key_id}.{self.secret}.{self.fingerprint}"

    @property
    def secret_sha256(self) -> str:
        """What is stored. The secret has 256 random bits: a slow hash would protect it no better."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def proves(self, token: EnrolmentToken | None) -> bool:
        """Whether the secret is that of `token`, in the same time whether or not there is one."""
        expected = token.secret_sha256 if token else "0" * 64
        return hmac.compare_digest(self.secret_sha256, expected) and token is not None
