"""Queries over REST: ask, look, cancel."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404
from pydantic import ValidationError
from rest_framework import serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aggregator.core.analytics import QueryConfig
from fedui.analytics.models import Query, QueryQuerySet
from fedui.analytics.services import cancel_query, create_query
from fedui.api.parsers import SmallJSONParser
from fedui.catalog.models import App
from fedui.federations.models import Act, Federation, Membership
from fedui.web.access import address_of

MAX_LISTED = 200


def _visible(request: Request) -> QueryQuerySet:
    """Queries of the federations that the user is a member of: for others there are none."""
    federations = Federation.objects.visible_to(request.user)
    return Query.objects.filter(federation__in=federations).select_related("federation", "app", "created_by")


def _authorise(request: Request, federation: Federation) -> None:
    """Whoever may start runs may ask queries."""
    membership = get_object_or_404(Membership, federation=federation, user_id=request.user.pk or 0)
    if not membership.may(Act.MANAGE_RUNS):
        raise PermissionDenied("Your role in this federation may not ask queries or cancel them.")


class NewQuery(serializers.Serializer[dict[str, Any]]):
    federation = serializers.SlugField()
    app = serializers.CharField(max_length=63)
    app_version = serializers.CharField(max_length=32)
    config = serializers.DictField()

    def validate_config(self, value: dict[str, Any]) -> QueryConfig:
        try:
            return QueryConfig.model_validate(value)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc'])) or 'config'}: {fault['msg']}" for fault in error.errors()]
            raise serializers.ValidationError(faults) from error


class QueryList(APIView):
    """The newest queries, of all one's federations or of `?federation=<slug>`."""

    parser_classes = (SmallJSONParser,)

    def get(self, request: Request) -> Response:
        found = _visible(request)
        if slug := request.query_params.get("federation"):
            found = found.filter(federation=get_object_or_404(Federation.objects.visible_to(request.user), slug=slug))
        return Response({"queries": [_summary(query) for query in found.without_results()[:MAX_LISTED]]})

    def post(self, request: Request) -> Response:
        form = NewQuery(data=request.data)
        form.is_valid(raise_exception=True)
        values = form.validated_data
        federation = get_object_or_404(Federation.objects.visible_to(request.user), slug=values["federation"])
        _authorise(request, federation)
        app = get_object_or_404(App, federation=federation, name=values["app"], version=values["app_version"])
        user: Any = request.user
        address = address_of(request._request)  # noqa: SLF001  # Django's own request
        query = create_query(federation, user, app=app, config=values["config"], address=address)
        return Response(_detail(query), status=status.HTTP_201_CREATED)


class QueryDetail(APIView):
    def get(self, request: Request, query_id: int) -> Response:
        return Response(_detail(get_object_or_404(_visible(request), pk=query_id)))


class CancelQuery(APIView):
    def post(self, request: Request, query_id: int) -> Response:
        query = get_object_or_404(_visible(request), pk=query_id)
        _authorise(request, query.federation)
        user: Any = request.user
        cancel_query(query, user, address_of(request._request))  # noqa: SLF001  # as above
        return Response(_detail(query))


def _summary(query: Query) -> dict[str, Any]:
    return {
        "id": query.pk,
        "federation": query.federation.slug,
        "app": query.app.name,
        "app_version": query.app.version,
        "column": query.config["column"],
        "statistics": query.config["statistics"],
        "status": query.status,
        "reason": query.reason,
        "created_by": query.created_by.username if query.created_by else None,
        "created_at": query.created_at,
        "started_at": query.started_at,
        "ended_at": query.ended_at,
    }


def _detail(query: Query) -> dict[str, Any]:
    return _summary(query) | {"config": query.config, "result": query.result}
