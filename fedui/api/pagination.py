"""Lists in pages. A cursor is where the last page ended: rows that come or go meanwhile shift nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlencode

from django.core import signing
from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.filters import OrderingFilter
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


class Ordering(OrderingFilter):
    """`?ordering=name` or `-name`, of a list's `ordering_fields`; anything else is an error, never passed over."""

    ordering_param = "ordering"
    ordering_description = "The field to sort by; with a minus sign, downwards."

    def get_ordering(self, request: Request, queryset: QuerySet[Any], view: Any) -> tuple[str, ...]:
        asked = request.query_params.get(self.ordering_param)
        fields = list(view.ordering_fields)
        if asked is not None and asked.removeprefix("-") not in fields:
            raise ValidationError(
                {self.ordering_param: [f"Choose one of {', '.join(fields)}; -{fields[0]} is downwards."]}
            )
        first = asked or view.ordering
        return (first,) if first.removeprefix("-") in ("pk", "id") else (first, "pk")

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        choices = [f"{sign}{name}" for name in view.ordering_fields for sign in ("", "-")]
        schema = {"type": "string", "enum": choices, "default": view.ordering}
        return [
            {"name": self.ordering_param, "in": "query", "description": self.ordering_description, "schema": schema}
        ]


class Pages(CursorPagination):
    """`limit` rows a page, and links to the next and the previous one.

    Cursors are signed for their list and its order: none is taken that we haven't made.
    """

    page_size = DEFAULT_LIMIT
    page_size_query_param = "limit"
    max_page_size = MAX_LIMIT
    page_size_query_description = "Rows a page."
    cursor_query_description = "Where the page begins, from `next` or `previous` of another."

    def get_page_size(self, request: Request) -> int:
        asked = request.query_params.get(self.page_size_query_param)
        if asked is None:
            return DEFAULT_LIMIT
        if not (asked.isascii() and asked.isdigit() and len(asked) < 6 and 1 <= int(asked) <= MAX_LIMIT):
            raise ValidationError({self.page_size_query_param: [f"A number from 1 to {MAX_LIMIT}."]})
        return int(asked)

    def decode_cursor(self, request: Request) -> Cursor | None:
        encoded = request.query_params.get(self.cursor_query_param)
        if encoded is None:
            return None
        try:
            tokens = parse_qs(signing.loads(encoded, salt=self._salt()), keep_blank_values=True)
        except signing.BadSignature as error:
            raise ValidationError(
                {self.cursor_query_param: ["This is no cursor of this list in this order."]}
            ) from error
        position = tokens.get("p", [None])[0]
        return Cursor(int(tokens.get("o", ["0"])[0]), tokens.get("r", ["0"])[0] == "1", position)

    def encode_cursor(self, cursor: Cursor) -> str:
        tokens: dict[str, Any] = {"o": cursor.offset, "r": int(cursor.reverse)}
        if cursor.position is not None:
            tokens["p"] = cursor.position
        encoded = signing.dumps(urlencode(tokens), salt=self._salt())
        return replace_query_param(str(self.base_url), self.cursor_query_param, encoded)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}
        return [
            {
                "name": self.cursor_query_param,
                "in": "query",
                "description": self.cursor_query_description,
                "schema": {"type": "string"},
            },
            {
                "name": self.page_size_query_param,
                "in": "query",
                "description": self.page_size_query_description,
                "schema": limit,
            },
        ]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["results", "next", "previous"],
            "properties": {"results": schema, "next": link, "previous": link},
        }

    def _salt(self) -> str:
        return f"fedui.api.cursor:{self.request.path}:{','.join(self.ordering)}"  # type: ignore[attr-defined]  # set by paginate_queryset
