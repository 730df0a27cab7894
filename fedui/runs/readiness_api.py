"""The readiness board over REST."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fedui.federations.models import Federation
from fedui.runs.preflight import Standing, preflight
from fedui.strategies.models import StrategyVersion


class ReadinessQuery(serializers.Serializer[dict[str, Any]]):
    app = serializers.CharField(max_length=63)
    app_version = serializers.CharField(max_length=32)
    strategy = serializers.CharField(max_length=100)
    strategy_version = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)


class Readiness(APIView):
    """Of every client whether it would take part in a run, and if not, why; for the newest version of the strategy if none is given."""

    def get(self, request: Request, slug: str) -> Response:
        federation = get_object_or_404(Federation.objects.visible_to(request.user), slug=slug)
        query = ReadinessQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        asked = query.validated_data
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
