"""ETags: a read may say what it knows already, a change must say of which state it is a change (RFC 9110, RFC 6585)."""

from __future__ import annotations

import hashlib
from typing import Any

from django.utils.http import parse_etags
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from fedui.errors import DomainError, ErrorCode

MUST_MATCH = frozenset({"PUT", "PATCH", "DELETE"})


class PreconditionFailed(DomainError):
    """What the caller has read isn't what is there now."""

    code = ErrorCode.PRECONDITION_FAILED


class PreconditionRequired(DomainError):
    """A change that doesn't say of what."""

    code = ErrorCode.PRECONDITION_REQUIRED


def etag_of(rendered: bytes) -> str:
    """The ETag of a representation, whichever of its fields are sent."""
    return f'"{hashlib.sha256(rendered).hexdigest()[:32]}"'


def is_known(request: Request, etag: str) -> bool:
    """Whether the reader has it already."""
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in known or etag in [one.removeprefix("W/") for one in known]


def require_match(request: Request, data: Any) -> None:
    """Let a change go on if it is one of `data`, the representation as it is now. PUT, PATCH and DELETE have to say so; a POST may.

    Call it with the row locked. Raises `PreconditionFailed` and `PreconditionRequired`.
    """
    expected = parse_etags(request.headers.get("If-Match", ""))
    if not expected:
        if request.method in MUST_MATCH and "If-Match" not in request.headers:
            raise PreconditionRequired(
                "This change needs an If-Match header.", hint="Read it first, and send its ETag as If-Match."
            )
        if "If-Match" not in request.headers:
            return
    if "*" not in expected and etag_of(JSONRenderer().render(data)) not in expected:
        raise PreconditionFailed("It has changed since it was read.", hint="Read it again, then decide anew.")
