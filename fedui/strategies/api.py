"""Strategies over REST: the schema they are written in, whether a wording is legal, and what a federation has saved."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aggregator.core.config import StrategyConfig
from aggregator.core.plain_yaml import MAX_CHARACTERS
from fedui.federations.models import Federation
from fedui.strategies.faults import parse_config, parse_yaml
from fedui.strategies.models import Strategy, StrategyVersion
from fedui.strategies.summary import summary


class StrategySchema(APIView):
    """JSON Schema (2020-12) of a strategy, the parts of installed packages included."""

    def get(self, request: Request) -> Response:
        return Response(StrategyConfig.model_json_schema())


class ValidationRequest(serializers.Serializer[dict[str, Any]]):
    config = serializers.JSONField(required=False)
    yaml = serializers.CharField(required=False, max_length=MAX_CHARACTERS, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Send either config, as JSON, or yaml, as text.")
        return attrs


class ValidateStrategy(APIView):
    """The strategy in full, with every default, as JSON, as YAML and in sentences; nothing is saved."""

    def post(self, request: Request) -> Response:
        form = ValidationRequest(data=request.data)
        form.is_valid(raise_exception=True)
        values = form.validated_data
        return Response(_said(parse_yaml(values["yaml"]) if "yaml" in values else parse_config(values["config"])))


class StrategiesView(APIView):
    """Strategies of one federation. For those who are no members of it there are none."""

    def strategies(self, request: Request, slug: str) -> QuerySet[Strategy]:
        visible = Federation.objects.visible_to(request.user)
        return get_object_or_404(visible, slug=slug).strategies.prefetch_related("versions__created_by")


class StrategyList(StrategiesView):
    """Each with its latest version."""

    def get(self, request: Request, slug: str) -> Response:
        found = self.strategies(request, slug)
        return Response({"strategies": [_strategy(s) | {"latest": _version(s.versions.all()[0])} for s in found]})


class StrategyDetail(StrategiesView):
    """With all its versions, the newest first."""

    def get(self, request: Request, slug: str, name: str) -> Response:
        strategy = get_object_or_404(self.strategies(request, slug), name=name)
        return Response(_strategy(strategy) | {"versions": [_version(v) for v in strategy.versions.all()]})


def _strategy(strategy: Strategy) -> dict[str, Any]:
    return {"name": strategy.name, "description": strategy.description, "created_at": strategy.created_at}


def _version(version: StrategyVersion) -> dict[str, Any]:
    """`config` is in the words of the newest schema, whichever it was saved in."""
    config = version.parsed
    return {
        "id": version.pk,
        "number": version.number,
        "created_at": version.created_at,
        "created_by": version.created_by.username if version.created_by else None,
        "algorithm": config.algorithm,
        "config": config.model_dump(mode="json"),
    }


def _said(config: StrategyConfig) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "yaml": config.to_yaml(),
        "algorithm": config.algorithm,
        "summary": [{"topic": statement.topic, "text": statement.text} for statement in summary(config)],
    }
