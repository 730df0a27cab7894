"""Queries over REST: ask, look, cancel."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from pydantic import ValidationError
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from aggregator.core.analytics import QueryConfig
from fedui.analytics.models import Query, QueryStatus
from fedui.analytics.services import cancel_query, create_query
from fedui.api import filters
from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.catalog.models import App
from fedui.errors import ErrorCode
from fedui.federations.models import Act, Membership, roles_that_may


class QueryOut(serializers.Serializer[Query]):
    id = serializers.IntegerField()
    federation = serializers.CharField(source="federation.slug")
    app = serializers.CharField(source="app.name")
    app_version = serializers.CharField(source="app.version")
    column = serializers.CharField(source="config.column")
    statistics = serializers.ListField(source="config.statistics", child=serializers.CharField())
    status = serializers.ChoiceField(choices=QueryStatus.choices)
    reason = serializers.CharField(help_text="Why it ended without a result.")
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)


class QueryMoreOut(QueryOut):
    config = serializers.DictField()
    result = serializers.JSONField(allow_null=True, help_text="The aggregate; no client's share of it.")


class NewQuery(Body):
    app = serializers.CharField(max_length=63)
    app_version = serializers.CharField(max_length=32)
    config = serializers.DictField(help_text="docs/analytics.md has its fields.")

    def validate_config(self, value: dict[str, Any]) -> QueryConfig:
        try:
            return QueryConfig.model_validate(value)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, fault['loc'])) or 'config'}: {fault['msg']}" for fault in error.errors()]
            raise serializers.ValidationError(faults) from error


class QueryFilters(filters.Filters):
    status = filters.ChoiceFilter(choices=QueryStatus.choices)


class QueryList(ListView):
    """The queries of a federation, the newest first."""

    noun = "queries"
    acts = {"GET": Act.READ, "POST": Act.MANAGE_RUNS}
    takes = {"POST": NewQuery}
    gives = {"GET": Gives(QueryOut, many=True), "POST": Gives(QueryMoreOut, 201)}
    refusals = {"POST": (ErrorCode.QUERY_REFUSED,)}
    queryset = Query.objects.none()
    filterset_class = QueryFilters
    ordering_fields = ("id", "created_at")

    def rows(self) -> QuerySet[Query]:
        found = Query.objects.filter(federation=self.membership.federation_id).without_results()
        return found.select_related("federation", "app", "created_by")

    def post(self, request: Request, slug: str) -> Response:
        """Ask for aggregates of a column over the clients that open it. Clients answer while they don't train."""
        wanted = self.body()
        app = get_object_or_404(App, federation=self.federation, name=wanted["app"], version=wanted["app_version"])
        query = create_query(self.federation, self.actor, app=app, config=wanted["config"], address=self.address)
        return Response(QueryMoreOut(query).data, 201)


class QueryView(ApiView):
    """Something of one query. For those who are no members of its federation it doesn't exist."""

    noun = "queries"

    def memberships(self) -> QuerySet[Membership]:
        """A site admin sees none of it: to them it doesn't exist, whatever its number."""
        return super().memberships().filter(role__in=roles_that_may(Act.READ))

    def place(self) -> dict[str, Any]:
        return {"federation__queries": self.kwargs["query_id"]}

    def found(self) -> Query:
        found = Query.objects.filter(federation=self.membership.federation_id)
        return get_object_or_404(found.select_related("federation", "app", "created_by"), pk=self.kwargs["query_id"])


class QueryDetail(QueryView):
    """One query, with its result."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(QueryMoreOut)}

    def get(self, request: Request, query_id: int) -> Response:
        return Response(QueryMoreOut(self.found()).data)


class CancelQuery(QueryView):
    """End the query without a result."""

    verbs = {"POST": "cancel"}
    acts = {"POST": Act.MANAGE_RUNS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(QueryMoreOut)}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION,)}

    def post(self, request: Request, query_id: int) -> Response:
        self.body()
        query = self.found()
        self.must_match(QueryMoreOut(query).data)
        cancel_query(query, self.actor, self.address)
        return Response(QueryMoreOut(query).data)
