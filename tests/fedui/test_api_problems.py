"""Errors of the API: RFC 9457 documents with one code each, and no inner detail for what nobody foresaw."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions

from fedui.api.catalogue import STATUS
from fedui.api.problems import exception_handler
from fedui.errors import DomainError, ErrorCode


def handled(error: Exception) -> dict[str, Any]:
    response = exception_handler(error, {})
    body: dict[str, Any] = json.loads(response.content)
    assert response["Content-Type"] == "application/problem+json"
    assert response.status_code == body["status"]
    assert body.keys() >= {"type", "title", "status", "detail", "code", "hint"}
    return body


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_a_domain_error_keeps_its_text_and_hint(code: ErrorCode) -> None:
    error = DomainError("It broke.", hint="Mend it.")
    error.code = code

    body = handled(error)

    assert (body["detail"], body["hint"], body["code"]) == ("It broke.", "Mend it.", code)
    assert body["status"] == STATUS[code]
    assert body["type"] == f"urn:fedui:problem:{code}"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Http404(), 404, "not_found"),
        (exceptions.NotFound(), 404, "not_found"),
        (PermissionDenied("no"), 403, "forbidden"),
        (exceptions.PermissionDenied(), 403, "forbidden"),
        (exceptions.NotAuthenticated(), 401, "unauthenticated"),
        (exceptions.AuthenticationFailed(), 401, "unauthenticated"),
        (exceptions.ValidationError({"name": ["Too long."]}), 400, "invalid_request"),
        (exceptions.ValidationError(["Wrong."]), 400, "invalid_request"),
        (exceptions.ParseError(), 400, "invalid_request"),
        (exceptions.MethodNotAllowed("PUT"), 405, "invalid_request"),
        (exceptions.UnsupportedMediaType("text/xml"), 415, "invalid_request"),
        (exceptions.Throttled(wait=7.2), 429, "throttled"),
    ],
)
def test_errors_of_the_framework(error: Exception, status: int, code: str) -> None:
    body = handled(error)

    assert (body["status"], body["code"]) == (status, code)


def test_what_is_wrong_with_each_field_is_said() -> None:
    body = handled(exceptions.ValidationError({"name": ["Too long."], "seed": ["Not a number."]}))

    assert body["detail"] == "name: Too long. seed: Not a number."
    assert body["errors"] == {"name": ["Too long."], "seed": ["Not a number."]}


def test_when_to_try_again_is_said() -> None:
    assert exception_handler(exceptions.Throttled(wait=7.2), {})["Retry-After"] == "8"


def test_an_unforeseen_error_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body = handled(ValueError("the password is swordfish"))

    assert body["code"] == "internal"
    assert "swordfish" not in json.dumps(body)
    assert "swordfish" in caplog.text
