"""Errors of the API as RFC 9457 problem details. The one place where an error becomes an HTTP status."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from redis.exceptions import RedisError
from rest_framework import exceptions

from fedui.api.catalogue import STATUS
from fedui.errors import DomainError, ErrorCode
from fedui.web.outage import RETRY_SECONDS

logger = logging.getLogger(__name__)


class RequestTooLarge(exceptions.APIException):
    status_code = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def problem(
    code: ErrorCode, detail: str, *, hint: str = "", status: int | None = None, **extensions: Any
) -> HttpResponse:
    """A problem document. `status` is that of `code` unless HTTP has a more exact one."""
    status = status or STATUS[code]
    body = {
        "type": f"urn:fedui:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": int(status),
        "detail": detail,
        "code": code,
        "hint": hint,
        **extensions,
    }
    return HttpResponse(json.dumps(body), status=status, content_type="application/problem+json")


def exception_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """The problem for whatever a view of the API raised. What nobody foresaw is logged, and told to nobody."""
    match error:
        case DomainError():
            return _refused(error)
        case exceptions.ValidationError():
            return _invalid(error)
        case exceptions.Throttled():
            return _throttled(error)
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return _unauthenticated(error)
        case RedisError():
            return _unavailable(error)
        case Http404() | exceptions.NotFound():
            return problem(ErrorCode.NOT_FOUND, "There is no such thing here, or you may not see it.")
        case PermissionDenied() | exceptions.PermissionDenied():
            return problem(ErrorCode.FORBIDDEN, str(error))
        case exceptions.APIException():
            return problem(ErrorCode.INVALID_REQUEST, str(error.detail), status=error.status_code)
    logger.error("Unforeseen error in %s", type(context.get("view")).__name__, exc_info=error)
    return problem(
        ErrorCode.INTERNAL, "Something went wrong on the server.", hint="Try again; the server's log has the details."
    )


def _refused(error: DomainError) -> HttpResponse:
    response = problem(error.code, str(error), hint=error.hint, **error.extensions)
    if error.retry_after is not None:
        response["Retry-After"] = str(error.retry_after)
    return response


def _unauthenticated(error: exceptions.APIException) -> HttpResponse:
    hint = "Sign in, or send a good API key: Authorization: Bearer fedk_…"
    refused = isinstance(error, exceptions.AuthenticationFailed)
    response = problem(ErrorCode.UNAUTHENTICATED, str(error.detail) if refused else "You are not signed in.", hint=hint)
    response["WWW-Authenticate"] = 'Bearer realm="FedUI"'
    return response


def _unavailable(error: RedisError) -> HttpResponse:
    """Attempts that can't be counted are refused: guessing would be free otherwise."""
    logger.error("Redis is away: %s", error)
    hint = f"Try again in {RETRY_SECONDS} s; /api/v1/ready tells what is away."
    response = problem(ErrorCode.UNAVAILABLE, "Redis is away, so that attempts can't be counted.", hint=hint)
    response["Retry-After"] = str(RETRY_SECONDS)
    return response


def _invalid(error: exceptions.ValidationError) -> HttpResponse:
    errors = error.detail if isinstance(error.detail, dict) else {"request": error.detail}
    detail = " ".join(f"{field}: {_first(messages)}" for field, messages in errors.items())
    return problem(ErrorCode.INVALID_REQUEST, detail, errors=errors)


def _first(messages: Any) -> str:
    return str(messages[0] if isinstance(messages, list) else messages)


def _throttled(error: exceptions.Throttled) -> HttpResponse:
    seconds = max(1, round(getattr(error, "wait", None) or 60))
    response = problem(ErrorCode.THROTTLED, "Too many requests.", hint=f"Try again in {seconds} s.")
    response["Retry-After"] = str(seconds)
    return response
