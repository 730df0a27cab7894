"""Strategies over REST: the schema they are written in, whether a wording is legal, and what a federation has saved."""

from __future__ import annotations

from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from aggregator.core.config import StrategyConfig
from aggregator.core.plain_yaml import MAX_CHARACTERS
from fedui.api.access import Access
from fedui.api.parsers import LargerJSONParser
from fedui.api.serializers import Body, Gives
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act
from fedui.strategies.faults import parse_config, parse_yaml
from fedui.strategies.models import Strategy, StrategyVersion
from fedui.strategies.services import create_strategy, save_version
from fedui.strategies.summary import summary


class JsonSchemaOut(serializers.Serializer[Any]):
    def to_representation(self, instance: Any) -> Any:
        return instance


class StatementOut(serializers.Serializer[Any]):
    topic = serializers.CharField()
    text = serializers.CharField()


class MeaningOut(serializers.Serializer[StrategyConfig]):
    config = serializers.DictField(help_text="In full, with every default.")
    yaml = serializers.CharField()
    algorithm = serializers.CharField()
    summary = StatementOut(many=True)


class VersionOut(serializers.Serializer[StrategyVersion]):
    id = serializers.IntegerField(help_text="That a run asks for.")
    number = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    algorithm = serializers.CharField(source="parsed.algorithm")
    config = serializers.SerializerMethodField()

    def get_config(self, version: StrategyVersion) -> dict[str, Any]:
        """In the words of the newest schema, whichever it was saved in."""
        return version.parsed.model_dump(mode="json")


class StrategyOut(serializers.Serializer[Strategy]):
    name = serializers.CharField()
    description = serializers.CharField()
    created_at = serializers.DateTimeField()
    latest = VersionOut()


class Wording(Body):
    config = serializers.JSONField(required=False, help_text="As JSON; or")
    yaml = serializers.CharField(required=False, max_length=MAX_CHARACTERS, trim_whitespace=False, help_text="as YAML.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("config" in attrs) == ("yaml" in attrs):
            raise serializers.ValidationError("Send either config, as JSON, or yaml, as text.")
        return attrs


class NewStrategy(Wording):
    name = serializers.SlugField(max_length=63)
    description = serializers.CharField(max_length=240, default="", allow_blank=True)


def _worded(wanted: dict[str, Any]) -> StrategyConfig:
    """Raises `BadStrategy`."""
    return parse_yaml(wanted["yaml"]) if "yaml" in wanted else parse_config(wanted["config"])


class StrategySchema(ApiView):
    """JSON Schema (2020-12) of a strategy, the parts of installed packages included."""

    noun = "strategies"
    verbs = {"GET": "get_schema"}
    acts = {"GET": Access.SIGNED_IN}
    gives = {"GET": Gives(JsonSchemaOut, sparse=False)}

    def get(self, request: Request) -> Response:
        return Response(StrategyConfig.model_json_schema())


class ValidateStrategy(ApiView):
    """The strategy in full, with every default, as JSON, as YAML and in sentences; nothing is saved."""

    noun = "strategies"
    verbs = {"POST": "validate"}
    acts = {"POST": Access.SIGNED_IN}
    takes = {"POST": Wording}
    gives = {"POST": Gives(MeaningOut)}
    refusals = {"POST": (ErrorCode.STRATEGY_INVALID,)}
    parser_classes = (LargerJSONParser,)

    def post(self, request: Request) -> Response:
        return Response(_said(_worded(self.body())))


class StrategyView(ApiView):
    noun = "strategies"
    parser_classes = (LargerJSONParser,)

    def strategies(self) -> QuerySet[Strategy]:
        return Strategy.objects.filter(federation=self.membership.federation_id).select_related("federation")

    def strategy(self) -> Strategy:
        return get_object_or_404(self.strategies(), name=self.kwargs["name"])

    def versions(self) -> QuerySet[StrategyVersion]:
        return self.strategy().versions.select_related("created_by", "strategy")

    def version(self) -> StrategyVersion:
        return get_object_or_404(self.versions(), number=self.kwargs["number"])


class StrategyList(StrategyView, ListView):
    """The strategies of a federation, each with its latest version."""

    acts = {"GET": Act.READ, "POST": Act.MANAGE_STRATEGIES}
    takes = {"POST": NewStrategy}
    gives = {"GET": Gives(StrategyOut, many=True), "POST": Gives(StrategyOut, 201)}
    refusals = {"POST": (ErrorCode.NAME_TAKEN, ErrorCode.STRATEGY_INVALID)}
    queryset = Strategy.objects.none()
    ordering_fields = ("name", "created_at")
    ordering = "name"

    def rows(self) -> QuerySet[Strategy]:
        return self.strategies()

    def prepared(self, page: list[Strategy]) -> list[Strategy]:
        newest = StrategyVersion.objects.filter(strategy=OuterRef("strategy")).order_by("-number").values("pk")[:1]
        found = StrategyVersion.objects.filter(strategy__in=page, pk=Subquery(newest)).select_related("created_by")
        latest = {version.strategy_id: version for version in found}
        for strategy in page:
            strategy.__dict__["known_latest"] = latest[strategy.pk]
        return page

    def post(self, request: Request, slug: str) -> Response:
        """Save a strategy as version 1."""
        wanted = self.body()
        made = create_strategy(
            self.federation, self.actor, name=wanted["name"], config=_worded(wanted),
            description=wanted["description"], address=self.address,
        )  # fmt: skip
        return Response(StrategyOut(made).data, 201)


class StrategyDetail(StrategyView):
    """One strategy, with its latest version."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(StrategyOut)}

    def get(self, request: Request, slug: str, name: str) -> Response:
        return Response(StrategyOut(self.strategy()).data)


class VersionList(StrategyView, ListView):
    """The versions of a strategy, the newest first."""

    verbs = {"GET": "list_versions", "POST": "save_version"}
    acts = {"GET": Act.READ, "POST": Act.MANAGE_STRATEGIES}
    takes = {"POST": Wording}
    gives = {"GET": Gives(VersionOut, many=True), "POST": Gives(VersionOut, 201)}
    refusals = {"POST": (ErrorCode.STRATEGY_INVALID,)}
    queryset = StrategyVersion.objects.none()
    ordering_fields = ("number",)
    ordering = "-number"

    def rows(self) -> QuerySet[StrategyVersion]:
        return self.versions()

    def post(self, request: Request, slug: str, name: str) -> Response:
        """Save the next version; the latest is answered if it says the same.

        `If-Match` with the strategy's ETag keeps two from editing at once.
        """
        config = _worded(self.body())
        strategy = get_object_or_404(self.strategies().select_for_update(of=("self",)), name=name)
        self.must_match(StrategyOut(strategy).data)
        return Response(VersionOut(save_version(strategy, config, self.actor, address=self.address)).data, 201)


class VersionDetail(StrategyView):
    """One version of a strategy."""

    verbs = {"GET": "get_version"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(VersionOut)}

    def get(self, request: Request, slug: str, name: str, number: int) -> Response:
        return Response(VersionOut(self.version()).data)


class VersionYaml(StrategyView):
    """A version of a strategy as YAML, as it can be sent again."""

    verbs = {"GET": "get_version_yaml"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(media_type="application/yaml", description="The strategy.")}

    def get(self, request: Request, slug: str, name: str, number: int) -> HttpResponse:
        return HttpResponse(self.version().parsed.to_yaml(), content_type="application/yaml")


def _said(config: StrategyConfig) -> dict[str, Any]:
    return {
        "config": config.model_dump(mode="json"),
        "yaml": config.to_yaml(),
        "algorithm": config.algorithm,
        "summary": [{"topic": statement.topic, "text": statement.text} for statement in summary(config)],
    }
