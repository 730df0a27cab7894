"""Strategies over REST: the schema they are written in, and whether a wording of one is legal."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aggregator.core.config import StrategyConfig
from fedui.errors import DomainError, ErrorCode

MAX_YAML = 100_000


class BadStrategy(DomainError):
    """A configuration that no run could have. The text names each place and what is wrong there."""

    code = ErrorCode.STRATEGY_INVALID


class StrategySchema(APIView):
    """JSON Schema (2020-12) of a strategy, the parts of installed packages included."""

    def get(self, request: Request) -> Response:
        return Response(StrategyConfig.model_json_schema())


class ValidationRequest(serializers.Serializer[dict[str, Any]]):
    config = serializers.JSONField(required=False)
    yaml = serializers.CharField(required=False, max_length=MAX_YAML, trim_whitespace=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Send either config, as JSON, or yaml, as text.")
        return attrs


class ValidateStrategy(APIView):
    """The strategy in full, with every default, as JSON and as YAML; nothing is saved."""

    def post(self, request: Request) -> Response:
        form = ValidationRequest(data=request.data)
        form.is_valid(raise_exception=True)
        config = _parsed(form.validated_data)
        return Response(
            {
                "config": config.model_dump(mode="json"),
                "yaml": config.to_yaml(),
                "algorithm": config.algorithm,
                "explanation": config.aggregation.explain(config.faults.quorum),
            }
        )


def _parsed(values: dict[str, Any]) -> StrategyConfig:
    try:
        return (
            StrategyConfig.from_yaml(values["yaml"])
            if "yaml" in values
            else StrategyConfig.model_validate(values["config"])
        )
    except ValidationError as error:
        places = [f"{'.'.join(map(str, e['loc'])) or 'strategy'}: {e['msg']}" for e in error.errors()]
        raise BadStrategy("; ".join(places), hint="The schema is at /api/v1/strategies/schema.") from error
    except ValueError as error:
        raise BadStrategy(str(error)) from error
