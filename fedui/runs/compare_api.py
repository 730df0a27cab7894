from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives
from fedui.api.views import ApiView
from fedui.federations.models import Act
from fedui.runs.comparison import ComparedRun, Comparison, asked


class ComparisonQuery(Body):
    """What it means is decided by `fedui.runs.comparison.asked`, as for the page."""

    runs = serializers.CharField(
        max_length=200, required=False, help_text="Two to eight ids, with commas between them."
    )
    metric = serializers.CharField(max_length=63, required=False, allow_blank=True)
    target = serializers.CharField(max_length=40, required=False, allow_blank=True, help_text="A value of the metric.")
    base = serializers.CharField(
        max_length=20, required=False, allow_blank=True, help_text="The run to measure against."
    )


class ComparedOut(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.CharField()
    ended = serializers.BooleanField()
    sources = serializers.DictField(child=serializers.CharField())
    curves = serializers.DictField(
        child=serializers.ListField(child=serializers.ListField(child=serializers.FloatField())),
        help_text="By metric. A point is round, seconds since the start, bytes so far, value.",
    )


class ResultOut(serializers.Serializer[Any]):
    label = serializers.CharField()  # type: ignore[assignment]  # a field is no attribute
    kind = serializers.CharField()
    values = serializers.ListField(child=serializers.FloatField(allow_null=True))


class SettingOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    values = serializers.ListField(child=serializers.CharField(allow_null=True))
    differs = serializers.BooleanField()


class ComparisonOut(serializers.Serializer[Any]):
    metric = serializers.CharField()
    metrics = serializers.ListField(child=serializers.CharField())
    target = serializers.FloatField(allow_null=True)
    base = serializers.IntegerField()
    runs = ComparedOut(many=True)
    results = ResultOut(many=True)
    settings = SettingOut(many=True)


class RunComparison(ApiView):
    """Two to eight runs on common axes: `?runs=3,1`, and optionally `metric`, `target` and `base`."""

    noun = "runs"
    verbs = {"GET": "compare"}
    acts = {"GET": Act.READ}
    asks = ComparisonQuery
    gives = {"GET": Gives(ComparisonOut)}

    def get(self, request: Request, slug: str) -> Response:
        return Response(_payload(asked(self.federation, request.query_params)))


def _payload(compared: Comparison) -> dict[str, Any]:
    return {
        "metric": compared.metric,
        "metrics": compared.metrics,
        "target": compared.target,
        "base": compared.runs[compared.base].run.pk,
        "runs": [_run(one) for one in compared.runs],
        "results": [{"label": row.label, "kind": row.kind, "values": row.values} for row in compared.results()],
        "settings": [{"name": row.name, "values": row.values, "differs": row.differs} for row in compared.settings()],
    }


def _run(one: ComparedRun) -> dict[str, Any]:
    """A point of a curve is round, seconds since the start, bytes so far, value."""
    return {
        "id": one.run.pk,
        "name": one.run.name,
        "status": one.run.status,
        "ended": one.run.is_terminal,
        "sources": one.sources,
        "curves": {
            name: [[p.round, round(p.seconds, 3), p.bytes, p.value] for p in points]
            for name, points in one.curves.items()
        },
    }
