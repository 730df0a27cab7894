"""The readiness board over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives
from fedui.api.views import ApiView
from fedui.clients.models import Presence
from fedui.federations.models import Act
from fedui.runs.preflight import Standing, preflight
from fedui.strategies.models import StrategyVersion


class ReadinessQuery(Body):
    app = serializers.CharField(max_length=63)
    app_version = serializers.CharField(max_length=32)
    strategy = serializers.CharField(max_length=100)
    strategy_version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)


class StandingOut(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    ready = serializers.BooleanField()
    reason = serializers.CharField()
    detail = serializers.CharField()
    presence = serializers.ChoiceField(choices=Presence.choices)
    last_seen_at = serializers.DateTimeField(allow_null=True)


class BoardAppOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()


class BoardStrategyOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.IntegerField()


class BoardOut(serializers.Serializer[Any]):
    app = BoardAppOut()
    strategy = BoardStrategyOut()
    refusal = serializers.CharField(
        help_text="Why app and strategy don't go together; empty: they do.", allow_null=True
    )
    needed = serializers.IntegerField()
    ready = serializers.IntegerField()
    enough = serializers.BooleanField()
    clients = StandingOut(many=True)


class Readiness(ApiView):
    """Of every client whether it would take part in a run, and if not, why; for the newest version of the strategy if none is given."""

    noun = "runs"
    verbs = {"GET": "preflight"}
    acts = {"GET": Act.READ}
    asks = ReadinessQuery
    gives = {"GET": Gives(BoardOut)}

    def get(self, request: Request, slug: str) -> Response:
        federation, asked = self.federation, self.query()
        app = get_object_or_404(federation.apps, name=asked["app"], version=asked["app_version"])
        versions = StrategyVersion.objects.filter(strategy__federation=federation, strategy__name=asked["strategy"])
        if "strategy_version" in asked:
            versions = versions.filter(number=asked["strategy_version"])
        version = get_object_or_404(versions.order_by("-number")[:1])
        check = preflight(federation, app, version.parsed, version)
        return Response(
            {
                "app": {"name": app.name, "version": app.version},
                "strategy": {"name": asked["strategy"], "version": version.number},
                "refusal": check.refusal,
                "needed": check.needed,
                "ready": len(check.ready),
                "enough": check.enough and not check.refusal,
                "clients": [_described(standing) for standing in check.board],
            }
        )


def _described(standing: Standing) -> dict[str, Any]:
    client = standing.client
    return {
        "id": str(client.pk),
        "name": client.name,
        "ready": standing.reason == "ready",
        "reason": standing.reason.value,
        "detail": standing.words,
        "presence": client.presence.value,
        "last_seen_at": client.last_seen_at,
    }
