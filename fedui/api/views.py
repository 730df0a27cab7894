"""What all views of the API have in common. A view says who may call it and what it takes and gives; the schema is made of just that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, cast

from django.db.models import QuerySet
from django.http import Http404, HttpResponse, HttpResponseBase, HttpResponseNotModified
from django.shortcuts import get_object_or_404
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework.exceptions import ValidationError
from rest_framework.generics import GenericAPIView
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.views import APIView

from fedui.api.access import Access, NamedAct
from fedui.api.conditional import etag_of, is_known, require_match
from fedui.api.once import once
from fedui.api.pagination import Ordering, Pages
from fedui.api.parsers import SmallJSONParser
from fedui.api.serializers import Body, Gives, TolerantBody
from fedui.api.throttles import FairUse, Rate
from fedui.errors import ErrorCode
from fedui.federations.models import Act, Federation, Membership
from fedui.keys.models import ApiKey
from fedui.web.access import address_of

UNSAFE = ("post", "put", "patch", "delete")
FIELDS = "fields"
MAX_NUMBER = 2**63 - 1
"""Databases have no larger ones, and some say so by an error."""


class ApiView(APIView):
    """One address of the API.

    `acts` names for each method what the caller must be allowed to do; a method that it leaves out is refused, and fails a test.
    Unsafe methods run in one transaction, and once an `Idempotency-Key` (`once`).
    """

    noun: ClassVar[str]
    """The tag of its operations, and the first half of their ids."""
    verbs: ClassVar[Mapping[str, str]] = {}
    """The second half by method, where it isn't as usual (`fedui.api.schema`)."""
    acts: ClassVar[Mapping[str, Act | Access]] = {}
    takes: ClassVar[Mapping[str, type[TolerantBody]]] = {}
    asks: ClassVar[type[Body] | None] = None
    """The parameters of a GET's query."""
    gives: ClassVar[Mapping[str, Gives]] = {}
    refusals: ClassVar[Mapping[str, tuple[ErrorCode, ...]]] = {}
    """Domain errors by method, for the schema; those that any call may meet are known."""
    repeatable: ClassVar[bool] = True
    """False where unsafe methods have no account that calls, and are harmless to repeat by themselves."""

    permission_classes = (NamedAct,)
    throttle_classes: Any = (FairUse,)
    parser_classes = (SmallJSONParser,)
    metadata_class = None
    rate: Rate | None = None
    wanted: frozenset[str] | None = None
    """The fields that are to be sent; None: all."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for method in UNSAFE:
            if cls.repeatable and method in cls.__dict__:
                setattr(cls, method, once(cls.__dict__[method]))

    # --- who calls ---------------------------------------------------------------------------------------------------

    def access_to(self, method: str | None) -> Act | Access | None:
        return self.acts.get("GET" if method == "HEAD" else method or "")

    def memberships(self) -> QuerySet[Membership]:
        """Those of the caller that count here: an API key has one."""
        found = Membership.objects.effective(self.request.user).select_related("federation", "user")
        key = self.api_key
        return found if key is None else found.filter(federation=key.federation_id)

    @cached_property
    def membership(self) -> Membership:
        """The caller's, in the federation that the address is about. Whoever has none there learns nothing: 404."""
        return get_object_or_404(self.memberships(), **self.place())

    def place(self) -> dict[str, Any]:
        """By what the address names its federation, as a filter of memberships."""
        return {"federation__slug": self.kwargs["slug"]}

    @property
    def federation(self) -> Federation:
        return self.membership.federation

    @property
    def api_key(self) -> ApiKey | None:
        """By which the caller came in; None: by a session."""
        return cast(ApiKey | None, self.request.auth)

    @property
    def actor(self) -> Any:
        """The account that calls, by itself or by a key."""
        return self.request.user

    @property
    def address(self) -> str | None:
        return address_of(self.request._request)  # noqa: SLF001  # Django's own request

    # --- what is asked -----------------------------------------------------------------------------------------------

    def body(self) -> Any:
        """What was sent, checked."""
        form = self.takes[self.request.method or ""](data=self.request.data, context={"view": self})
        form.is_valid(raise_exception=True)
        return form.validated_data

    def query(self) -> Any:
        """The parameters of the query, checked."""
        assert self.asks is not None
        asked, fields = self.request.query_params, list(map(str, self.asks().fields))
        form = self.asks(data={name: asked[name] for name in fields if name in asked}, context={"view": self})
        form.is_valid(raise_exception=True)
        return form.validated_data

    def must_match(self, data: Any) -> None:
        """Refuse a change of something else than `data`, what a GET shows now. Call it with the row locked."""
        require_match(self.request, data)

    def known_parameters(self) -> set[str]:
        asked = set(self.asks().fields) if self.asks else set()
        return asked | ({FIELDS} if self._sparse() else set())

    def _sparse(self) -> BaseSerializer[Any] | None:
        """What a GET gives, if it has fields to choose among."""
        given = self.gives.get("GET")
        return given.serializer() if given and given.serializer and given.sparse else None

    # --- the frame ---------------------------------------------------------------------------------------------------

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        if any(isinstance(number, int) and number > MAX_NUMBER for number in kwargs.values()):
            raise Http404
        super().initial(request, *args, **kwargs)
        self._check_parameters(request)

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Whatever is accepted, the answer is what the schema says: JSON, but for downloads."""
        return super().perform_content_negotiation(request, force=True)

    def check_permissions(self, request: Request) -> None:
        # Counted before anything is looked up, so that strangers and the refused are counted too.
        super().check_throttles(request)
        super().check_permissions(request)

    def check_throttles(self, request: Request) -> None:
        """Done by `check_permissions`."""

    def _check_parameters(self, request: Request) -> None:
        """A misspelt filter would show everything: what isn't known is refused."""
        known: set[str] = self.known_parameters() if request.method in ("GET", "HEAD") else set()
        if unknown := sorted(set(request.query_params) - known):
            names = ", ".join(sorted(known)) or "none"
            raise ValidationError({unknown[0][:60]: [f"There is no such parameter. Known are: {names}."]})
        if any("\0" in value for values in request.query_params.lists() for value in values[1]):
            raise ValidationError({"query": ["The character NUL is no part of a text."]})
        if FIELDS in known and (asked := request.query_params.get(FIELDS)) is not None:
            self.wanted = self._checked_fields(asked)

    def _checked_fields(self, asked: str) -> frozenset[str]:
        shown = self._sparse()
        names, there = frozenset(asked.split(",")), list(getattr(shown, "fields", ()))
        if not names <= set(there):
            raise ValidationError({FIELDS: [f"Name some of {', '.join(there)}, with commas between them."]})
        return names

    def finalize_response(self, request: Request, response: HttpResponseBase, *args: Any, **kwargs: Any) -> Any:
        if isinstance(response, Response) and request.method in ("GET", "HEAD") and response.status_code == 200:
            response = self._settled(request, response)
        final: Any = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[arg-type]
        final.setdefault("Cache-Control", "private, no-cache" if request.method in ("GET", "HEAD") else "no-store")
        for name, value in (self.rate.headers() if self.rate else {}).items():
            final[name] = value
        return final

    def _settled(self, request: Request, response: Response) -> HttpResponseBase:
        """With its ETag and the fields that are wanted; or 304, if the reader has it."""
        rendered = JSONRenderer().render(response.data)
        etag = response.get("ETag") or etag_of(rendered)
        if is_known(request, etag):
            return HttpResponseNotModified(headers={"ETag": etag})
        if self.wanted is not None:
            rendered = JSONRenderer().render(self._sparsely(response.data))
        return HttpResponse(rendered, headers={**response.headers, "Content-Type": "application/json", "ETag": etag})

    def _sparsely(self, data: Any) -> Any:
        assert self.wanted is not None
        return {name: value for name, value in data.items() if name in self.wanted}


class ListView(ApiView, GenericAPIView[Any]):
    """A list in pages: `limit`, `cursor`, `ordering`, `fields`, and the filters of `filterset_class` or `filterset_fields`."""

    pagination_class = Pages
    filter_backends = (Ordering, DjangoFilterBackend)
    ordering_fields: ClassVar[tuple[str, ...]] = ("id",)
    """Fields that hardly repeat: a page ends after a value."""
    ordering: ClassVar[str] = "-id"
    filterset_class: Any = None
    filterset_fields: ClassVar[tuple[str, ...]] = ()

    def rows(self) -> QuerySet[Any]:
        """What the caller may see, with all that a row's representation needs."""
        raise NotImplementedError

    def get_queryset(self) -> QuerySet[Any]:
        if getattr(self, "swagger_fake_view", False):
            return cast(Any, self).queryset  # type: ignore[no-any-return]
        return self.rows()

    def get(self, request: Request, **_: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        serializer = self.gives["GET"].serializer
        assert serializer is not None and page is not None
        return self.get_paginated_response(serializer(self.prepared(page), many=True, context={"view": self}).data)

    def prepared(self, page: list[Any]) -> list[Any]:
        """The rows of a page, with what is found out of all of them at once."""
        return page

    def known_parameters(self) -> set[str]:
        filters = set(self.filterset_class.get_filters()) if self.filterset_class else set(self.filterset_fields)
        return super().known_parameters() | filters | {"cursor", "limit", "ordering"}

    def _sparsely(self, data: Any) -> Any:
        return {**data, "results": [super(ListView, self)._sparsely(row) for row in data["results"]]}
