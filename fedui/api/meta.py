"""What is about the server and the API itself: is it alive, is it ready, what does it offer, who am I."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from csp.decorators import csp_update
from django.core.cache import cache
from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

import fedui
from fedui.api.access import Access
from fedui.api.problems import problem
from fedui.api.serializers import Gives
from fedui.api.throttles import FairUse
from fedui.api.views import ApiView
from fedui.errors import ErrorCode
from fedui.federations.models import Role
from fedui.keys.scopes import Scope


class HealthOut(serializers.Serializer[Any]):
    status = serializers.CharField()
    version = serializers.CharField()


class Health(ApiView):
    """Whether the web process is alive. It asks nothing else: a supervisor that restarts it would mend nothing else."""

    noun = "health"
    verbs = {"GET": "live"}
    acts = {"GET": Access.PUBLIC}
    gives = {"GET": Gives(HealthOut, sparse=False)}
    authentication_classes = ()
    throttle_classes = ()

    def get(self, request: Request) -> Response:
        return Response({"status": "ok", "version": fedui.__version__})


class ReadyOut(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["ready", "degraded", "not ready"])
    parts = serializers.DictField(
        child=serializers.BooleanField(), help_text="What it works with, and whether it is there."
    )
    degraded = serializers.ListField(
        child=serializers.CharField(), help_text="What it does without while parts are away that it can serve without."
    )


class Ready(ApiView):
    """Whether requests may be sent to the web process: 200, or 503 if it can serve none. For whoever decides where they go.

    It needs the database, as this version has it. Without Redis it serves pages and the API, and `degraded` says what is not as usual:
    taking it out of a balancer would mend nothing, since all others are without Redis too.
    """

    noun = "health"
    verbs = {"GET": "ready"}
    acts = {"GET": Access.PUBLIC}
    gives = {"GET": Gives(ReadyOut, sparse=False, also={503: "Not ready; the same fields."})}
    authentication_classes = ()
    throttle_classes = ()

    def get(self, request: Request) -> Response:
        parts = {name: _is_there(check) for name, check in PARTS.items()}
        degraded = [WITHOUT[name] for name, there in parts.items() if name in WITHOUT and not there]
        if not all(there for name, there in parts.items() if name not in WITHOUT):
            return Response({"status": "not ready", "parts": parts, "degraded": degraded}, 503)
        return Response({"status": "degraded" if degraded else "ready", "parts": parts, "degraded": degraded})


def _database() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return True


@lru_cache
def _migrations() -> bool:
    """Whether the database is of this version: once it is, it isn't looked at again."""
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise LookupError("The database wants migrations.")
    return True


def _redis() -> bool:
    cache.get("ready")
    return True


PARTS: Mapping[str, Callable[[], bool]] = {"database": _database, "migrations": _migrations, "redis": _redis}
WITHOUT: Mapping[str, str] = {
    "redis": "Redis is away: pages are told of changes late, nobody signs in or enrolls, and calls of the API aren't counted.",
}
"""Parts that requests are served without, and what is missing then."""


def _is_there(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except Exception:  # whatever a driver raises: the part is away
        return False


class MembershipOut(serializers.Serializer[Any]):
    federation = serializers.CharField(source="federation.slug")
    name = serializers.CharField(source="federation.name")
    role = serializers.ChoiceField(choices=Role.choices)


class MeOut(serializers.Serializer[Any]):
    username = serializers.CharField()
    memberships = MembershipOut(many=True)
    api_key = serializers.CharField(allow_null=True, help_text="The prefix of the key that was sent.")
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Scope.choices), allow_null=True, help_text="Of the key; null: all."
    )


class Me(ApiView):
    """Who calls: the account, the federations in which it counts now, and the API key."""

    noun = "me"
    acts = {"GET": Access.SIGNED_IN}
    gives = {"GET": Gives(MeOut)}

    def get(self, request: Request) -> Response:
        key = self.api_key
        memberships = self.memberships().order_by("federation__slug")
        return Response(
            {
                "username": self.actor.get_username(),
                "memberships": MembershipOut(list(memberships), many=True).data,
                "api_key": key.prefix if key else None,
                "scopes": key.scopes if key else None,
            }
        )


@csrf_exempt
def nowhere(request: HttpRequest) -> HttpResponse:
    """Programs get a problem document where people get a page."""
    return problem(
        ErrorCode.NOT_FOUND, "There is no such address in this API.", hint="The schema lists all: /api/v1/schema."
    )


@lru_cache
def _schema() -> Any:
    return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


class _Made(SchemaGenerator):
    """Once a process: it takes most of a second, and anybody may ask."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        return _schema()


class SchemaView(SpectacularAPIView):
    """The OpenAPI description. Public, like the source that it is made of."""

    generator_class = _Made
    throttle_classes = (FairUse,)
    metadata_class = None


@method_decorator(csp_update({"worker-src": ["'self'", "blob:"]}), name="dispatch")
class Redoc(SpectacularRedocView):
    url_name = "api:schema"
    template_name = "api/redoc.html"
    metadata_class = None


class Swagger(SpectacularSwaggerSplitView):
    template_name = "api/swagger.html"
    url_name = "api:schema"
    metadata_class = None
