"""What each code of an error means to whoever gets it, and its HTTP status. `docs/errors.md` is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fedui.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Meaning:
    status: HTTPStatus
    happened: str
    do: str


CATALOGUE: Mapping[ErrorCode, Meaning] = {
    ErrorCode.TOKEN_INVALID: Meaning(
        HTTPStatus.FORBIDDEN, "An enrolment token that this server never made, or not so.", "Copy the whole token."
    ),
    ErrorCode.TOKEN_EXPIRED: Meaning(
        HTTPStatus.FORBIDDEN, "The enrolment token is past its end.", "Ask the federation for a new one."
    ),
    ErrorCode.TOKEN_SPENT: Meaning(
        HTTPStatus.FORBIDDEN, "The enrolment token has enrolled as many as it may.", "Ask for a new one."
    ),
    ErrorCode.TOKEN_REVOKED: Meaning(
        HTTPStatus.FORBIDDEN, "Somebody has revoked the enrolment token.", "Ask for a new one."
    ),
    ErrorCode.CSR_INVALID: Meaning(
        HTTPStatus.BAD_REQUEST, "No certificate can be made of this signing request.", "Send one with a P-256 key."
    ),
    ErrorCode.ADMISSION_REFUSED: Meaning(
        HTTPStatus.FORBIDDEN, "The machine may not be this client.", "Read the detail; ask the federation's operator."
    ),
    ErrorCode.RENEWAL_TOO_SOON: Meaning(
        HTTPStatus.TOO_MANY_REQUESTS, "The certificate was renewed a moment ago.", "Wait, then try again."
    ),
    ErrorCode.NAME_TAKEN: Meaning(
        HTTPStatus.CONFLICT, "Something else of the kind has this name.", "Choose another name."
    ),
    ErrorCode.ILLEGAL_TRANSITION: Meaning(
        HTTPStatus.CONFLICT, "What you act on is in a state in which that can't be done.", "Read it again."
    ),
    ErrorCode.RUN_REFUSED: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "A run that could never be, or an order that makes no sense.", "Read the hint."
    ),
    ErrorCode.QUERY_REFUSED: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "A query that could have no result, or one too many.", "Read the hint."
    ),
    ErrorCode.LAST_OWNER: Meaning(
        HTTPStatus.CONFLICT, "The federation would be left without an owner.", "Make somebody else an owner first."
    ),
    ErrorCode.INVITATION_REFUSED: Meaning(
        HTTPStatus.FORBIDDEN, "The invitation was used, has expired or was taken back.", "Ask for a new one."
    ),
    ErrorCode.STRATEGY_INVALID: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "This is no strategy; `faults` says where.", "Compare it with the schema."
    ),
    ErrorCode.INVALID_REQUEST: Meaning(
        HTTPStatus.BAD_REQUEST,
        "The request can't be understood; `errors` names the fields. Also 405, 406, 413 and 415, where HTTP has a status of its own.",
        "Mend the request.",
    ),
    ErrorCode.UNAUTHENTICATED: Meaning(
        HTTPStatus.UNAUTHORIZED, "Nobody is signed in, or the API key isn't good.", "Sign in, or send a good key."
    ),
    ErrorCode.NOT_FOUND: Meaning(
        HTTPStatus.NOT_FOUND, "There is no such thing, or you may not see it.", "Look at the number and the federation."
    ),
    ErrorCode.FORBIDDEN: Meaning(
        HTTPStatus.FORBIDDEN,
        "Your role doesn't allow it; or a browser's request came without its CSRF token.",
        "Ask an owner for another role.",
    ),
    ErrorCode.SCOPE_MISSING: Meaning(
        HTTPStatus.FORBIDDEN, "The API key lacks the scope that this takes.", "Make a key with the scope named."
    ),
    ErrorCode.PRECONDITION_FAILED: Meaning(
        HTTPStatus.PRECONDITION_FAILED,
        "It has changed since you read it: `If-Match` isn't its ETag any more.",
        "Read it again, then decide anew.",
    ),
    ErrorCode.PRECONDITION_REQUIRED: Meaning(
        HTTPStatus.PRECONDITION_REQUIRED,
        "This change must say of which state it is a change.",
        "Send the ETag that you read as `If-Match`.",
    ),
    ErrorCode.IDEMPOTENCY_CONFLICT: Meaning(
        HTTPStatus.CONFLICT, "The `Idempotency-Key` belongs to another request of yours.", "Take a new key."
    ),
    ErrorCode.API_KEY_REFUSED: Meaning(
        HTTPStatus.UNPROCESSABLE_ENTITY, "An API key that may not be made so.", "Read the hint."
    ),
    ErrorCode.THROTTLED: Meaning(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many requests in this minute, or too many event streams open at a time.",
        "Wait for the seconds of `Retry-After`.",
    ),
    ErrorCode.GONE: Meaning(HTTPStatus.GONE, "It was here, and retention has removed it.", "Nothing brings it back."),
    ErrorCode.UNAVAILABLE: Meaning(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Redis is away, so that attempts can't be counted: none is let in.",
        "Try again after the seconds of `Retry-After`; `/api/v1/ready` tells what is away.",
    ),
    ErrorCode.INTERNAL: Meaning(
        HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of the server's.", "Try again; the server's log has the details."
    ),
}

STATUS: Mapping[ErrorCode, HTTPStatus] = {code: meaning.status for code, meaning in CATALOGUE.items()}

_HEAD = """# Errors

Every error of the REST API is a problem document (RFC 9457, `application/problem+json`): `type`, `title`, `status`, `detail` (what has
happened), `code` (one of the list below, stable), `hint` (what to do), and for some codes more members. Pages and agents get the same
errors in the same words.

This page is made from `fedui/api/catalogue.py` by `make api`.

| code | status | what has happened | what to do |
|---|---|---|---|
"""


def as_markdown() -> str:
    rows = [f"| `{code}` | {m.status.value} | {m.happened} | {m.do} |\n" for code, m in CATALOGUE.items()]
    return _HEAD + "".join(rows)
