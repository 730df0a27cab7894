"""The OpenAPI schema, from what views say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema_field
from rest_framework import serializers

from fedui.api import once
from fedui.api.access import Access
from fedui.api.catalogue import CATALOGUE
from fedui.api.conditional import MUST_MATCH
from fedui.api.serializers import Gives
from fedui.api.views import FIELDS, UNSAFE, ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act
from fedui.keys.scopes import SCOPE_OF, Scope

PROBLEM = "application/problem+json"
_VERBS = {"GET": "get", "POST": "create", "PUT": "replace", "PATCH": "change", "DELETE": "delete"}


@extend_schema_field({"oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}]})
class _Faults(serializers.JSONField):
    """What is wrong with a request."""


class Problem(serializers.Serializer[Any]):
    """An error (RFC 9457), with a code from the catalogue in docs/errors.md."""

    type = serializers.CharField(help_text="urn:fedui:problem: and the code")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="What has happened.")
    code = serializers.ChoiceField(choices=[code.value for code in ErrorCode])
    hint = serializers.CharField(help_text="What to do; may be empty.")
    errors = _Faults(required=False, help_text="Messages by field; of a strategy a list with each one's place.")  # type: ignore[assignment]  # a field is no attribute


class Schema(AutoSchema):
    view: Any

    def is_excluded(self) -> bool:
        return not isinstance(self.view, ApiView)

    def get_tags(self) -> list[str]:
        return [self.view.noun]

    def get_operation_id(self) -> str:
        usual = "list" if self.method == "GET" and isinstance(self.view, ListView) else _VERBS[self.method]
        return f"{self.view.noun}_{self.view.verbs.get(self.method, usual)}"

    def get_description(self) -> str:  # type: ignore[override]  # drf-spectacular's has no parameters
        return f"{super().get_description()}\n\n{self._access()}".strip()

    def get_summary(self) -> str | None:
        return super().get_description().strip().split("\n")[0].split(". ")[0].split(": ")[0].rstrip(".") or None

    def get_request_serializer(self) -> Any:
        return self.view.takes.get(self.method)

    def get_response_serializers(self) -> Any:
        given = self.view.gives.get(self.method, Gives())
        answers: dict[Any, Any] = {(given.status, given.media_type): self._answer(given)}
        if given.serializer is None and given.media_type == "application/json":
            answers = {204: OpenApiResponse(description="Done.")}
        if self.method == "GET" and given.serializer:
            answers[304] = OpenApiResponse(description="If-None-Match is its ETag.")
        for status, meaning in given.also.items():
            answers[status] = OpenApiResponse(description=meaning)
        for status, codes in self._problems().items():
            words = ", ".join(f"`{code}`" for code in codes)
            answers[(status, PROBLEM)] = OpenApiResponse(Problem, words)
        return answers

    def get_override_parameters(self) -> list[Any]:
        found: list[Any] = [self.view.asks] if self.view.asks and self.method == "GET" else []
        if self.method == "GET":
            found += self._of_a_read()
        elif self.view.repeatable and self.method.lower() in UNSAFE:
            found += self._of_a_change()
        return found

    def _answer(self, given: Gives) -> Any:
        if given.serializer is None:
            content = OpenApiTypes.OBJECT if given.media_type == "application/yaml" else OpenApiTypes.BINARY
            return OpenApiResponse(content, given.description)
        return OpenApiResponse(given.serializer(many=given.many), given.description)

    def _of_a_read(self) -> list[OpenApiParameter]:
        given = self.view.gives.get("GET", Gives())
        if given.serializer is None:
            return []
        known = _header("If-None-Match", "An ETag that the caller has: 304 if it is still this.")
        if not given.sparse:
            return [known]
        names = ", ".join(f"`{name}`" for name in given.serializer().fields)
        words = f"Only these fields, with commas between them: {names}."
        return [known, OpenApiParameter(FIELDS, OpenApiTypes.STR, OpenApiParameter.QUERY, description=words)]

    def _of_a_change(self) -> list[OpenApiParameter]:
        key = OpenApiParameter(
            once.HEADER, OpenApiTypes.STR, OpenApiParameter.HEADER, pattern=once.PATTERN,
            description="Makes the call safe to repeat for 24 hours: 16 to 255 visible ASCII characters, a random UUID, say.",
        )  # fmt: skip
        must = self.method in MUST_MATCH
        match = _header("If-Match", "The ETag of what is to be changed, as it was read.", required=must)
        return [key, match]

    def _problems(self) -> Mapping[int, list[ErrorCode]]:
        codes = [ErrorCode.INVALID_REQUEST, ErrorCode.THROTTLED]
        access = self.view.access_to(self.method)
        if access != Access.PUBLIC:
            codes += [ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN, ErrorCode.SCOPE_MISSING]
        if isinstance(access, Act) or "{" in self.path:
            codes.append(ErrorCode.NOT_FOUND)
        if self.method != "GET" and self.view.repeatable:
            codes += [ErrorCode.IDEMPOTENCY_CONFLICT, ErrorCode.PRECONDITION_FAILED]
        if self.method in MUST_MATCH:
            codes.append(ErrorCode.PRECONDITION_REQUIRED)
        found: dict[int, list[ErrorCode]] = {}
        for code in dict.fromkeys([*codes, *self.view.refusals.get(self.method, ())]):
            found.setdefault(int(CATALOGUE[code].status), []).append(code)
        return dict(sorted(found.items()))

    def _access(self) -> str:
        """Who may, in words."""
        access = self.view.access_to(self.method)
        if isinstance(access, Act):
            return f"Takes the right *{access.label}*; of an API key the scope `{SCOPE_OF[access].value}`."
        return {
            Access.PUBLIC: "Takes no sign-in.",
            Access.SIGNED_IN: f"Takes any account; of an API key the scope `{Scope.READ.value}`.",
            Access.ACCOUNT: "Takes an account that is signed in; no API key will do.",
            Access.INSTALLATION: "Takes an installation administrator who is signed in; no API key will do.",
        }.get(access, "Closed.")


def _header(name: str, description: str, *, required: bool = False) -> OpenApiParameter:
    return OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, required=required, description=description)
