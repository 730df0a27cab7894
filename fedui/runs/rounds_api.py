"""Rounds, participations and figures of runs over REST."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Avg, F, IntegerField, Max, Min, QuerySet
from django.db.models.functions import Cast
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api import filters
from fedui.api.serializers import Body, Gives
from fedui.api.views import ListView
from fedui.clients.presence_api import ClientView
from fedui.federations.models import Act
from fedui.runs.api import RunView
from fedui.runs.models import Metric, MetricSource, Outcome, Participation, Round, RoundStatus
from fedui.runs.outs import ParticipationOut, RoundOut, RunParticipationOut
from fedui.runs.services import MAX_ROUNDS
from fedui.runs.similarity import similarity_payload

MAX_UPDATES = 10_000
MAX_POINTS = 2_000


class RoundFilters(filters.Filters):
    status = filters.ChoiceFilter(choices=RoundStatus.choices)
    number = filters.NumberFilter(min_value=0, max_value=MAX_ROUNDS)


class RoundList(RunView, ListView):
    """The rounds of a run, each attempt for itself."""

    noun = "rounds"
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(RoundOut, many=True)}
    queryset = Round.objects.none()
    filterset_class = RoundFilters
    ordering = "id"

    def rows(self) -> QuerySet[Round]:
        return Round.objects.filter(run=self.run()).with_totals()


class ParticipationFilters(filters.Filters):
    round = filters.NumberFilter(field_name="round__number", min_value=0, max_value=MAX_ROUNDS)
    client = filters.UUIDFilter(field_name="client_id")
    outcome = filters.ChoiceFilter(choices=Outcome.choices)
    flagged = filters.BooleanFilter()


class ParticipationList(RunView, ListView):
    """Who took part in which round of a run, what it took, and how it ended."""

    noun = "participations"
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(ParticipationOut, many=True)}
    queryset = Participation.objects.none()
    filterset_class = ParticipationFilters
    ordering = "id"

    def rows(self) -> QuerySet[Participation]:
        return Participation.objects.filter(round__run=self.run()).select_related("round")


class ClientParticipations(ClientView, ListView):
    """The rounds, of all runs, in which a client took part; the newest first."""

    noun = "participations"
    verbs = {"GET": "list_of_client"}
    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(RunParticipationOut, many=True)}
    queryset = Participation.objects.none()
    filterset_fields = ("outcome",)

    def rows(self) -> QuerySet[Participation]:
        return self.client(self.kwargs["client_id"]).participations.select_related("round")


class MetricsQuery(Body):
    name = serializers.CharField(
        max_length=63, required=False, help_text="accuracy, loss, …; all, where there is none."
    )
    source = serializers.ChoiceField(choices=MetricSource.choices, required=False)  # type: ignore[assignment]  # a field is no attribute
    first = serializers.IntegerField(min_value=0, max_value=MAX_ROUNDS, default=0, help_text="The first round.")
    last = serializers.IntegerField(min_value=0, max_value=MAX_ROUNDS, required=False, help_text="The last round.")
    points = serializers.IntegerField(
        min_value=1, max_value=MAX_POINTS, default=500, help_text="At most so many of a curve: longer ones are thinned."
    )


class PointOut(serializers.Serializer[Any]):
    round = serializers.IntegerField(help_text="The last of those that the point sums up.")
    value = serializers.FloatField(help_text="Their mean.")
    low = serializers.FloatField()
    high = serializers.FloatField()


class SeriesOut(serializers.Serializer[Any]):
    source = serializers.ChoiceField(choices=MetricSource.choices)  # type: ignore[assignment]  # a field is no attribute
    name = serializers.CharField()
    points = PointOut(many=True)


class MetricsOut(serializers.Serializer[Any]):
    rounds_per_point = serializers.IntegerField(help_text="1: nothing was thinned.")
    series = SeriesOut(many=True)


class RunMetrics(RunView):
    """Curves of a run's figures over its rounds. A long range is thinned: a point is the mean, lowest and highest of some rounds."""

    noun = "metrics"
    acts = {"GET": Act.READ}
    asks = MetricsQuery
    gives = {"GET": Gives(MetricsOut)}

    def get(self, request: Request, run_id: int) -> Response:
        asked = self.query()
        found = Metric.objects.filter(run=self.run(), round_number__gte=asked["first"])
        if "last" in asked:
            found = found.filter(round_number__lte=asked["last"])
        found = found.filter(**{name: asked[name] for name in ("name", "source") if name in asked})
        return Response(_thinned(found, asked["first"], asked["points"]))


def _thinned(found: QuerySet[Metric], first: int, points: int) -> dict[str, Any]:
    newest: int = found.aggregate(last=Max("round_number"))["last"] or first
    width = -(-(newest - first + 1) // points)
    bucket = Cast((F("round_number") - first) / width, IntegerField())
    rows = (
        found.order_by()
        .values("source", "name", bucket=bucket)
        .annotate(round=Max("round_number"), mean=Avg("value"), low=Min("value"), high=Max("value"))
        .order_by("source", "name", "bucket")
    )
    series: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        point = {"round": row["round"], "value": row["mean"], "low": row["low"], "high": row["high"]}
        series.setdefault((row["source"], row["name"]), []).append(point)
    told = [{"source": source, "name": name, "points": one} for (source, name), one in series.items()]
    return {"rounds_per_point": width, "series": told}


class SimilarityOut(serializers.Serializer[Any]):
    round = serializers.IntegerField()
    attempt = serializers.IntegerField()
    clients = serializers.ListField(child=serializers.UUIDField())
    cosines = serializers.ListField(child=serializers.ListField(child=serializers.FloatField(allow_null=True)))


class RoundSimilarity(RunView):
    """How alike the updates of a committed round were: the estimated cosine of each pair of clients."""

    noun = "rounds"
    verbs = {"GET": "get_similarity"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(SimilarityOut)}

    def get(self, request: Request, run_id: int, round_number: int) -> Response:
        committed = Round.objects.filter(run=self.run(), status=RoundStatus.COMMITTED)
        return Response(similarity_payload(get_object_or_404(committed, number=round_number)))


class UpdateOut(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    round = serializers.IntegerField()
    attempt = serializers.IntegerField()
    sha256 = serializers.CharField()
    bytes = serializers.IntegerField()


class ReceiptOut(serializers.Serializer[Any]):
    client = serializers.UUIDField()
    updates = UpdateOut(many=True)
    more = serializers.BooleanField(help_text="There are older ones.")


class ClientUpdates(ClientView):
    """The updates of a client that rounds have counted, the newest first: what its owner's `fedagent log --compare` reads."""

    verbs = {"GET": "get_receipt"}
    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(ReceiptOut)}

    def get(self, request: Request, slug: str, client_id: UUID) -> Response:
        client = self.client(client_id)
        counted = client.participations.exclude(update_sha256="").order_by("-pk")
        rows = counted.values("round__run_id", "round__number", "round__attempt", "update_sha256", "bytes_up")
        updates = [
            {
                "run": row["round__run_id"],
                "round": row["round__number"],
                "attempt": row["round__attempt"],
                "sha256": row["update_sha256"],
                "bytes": row["bytes_up"],
            }
            for row in rows[: MAX_UPDATES + 1]
        ]
        body: dict[str, Any] = {
            "client": str(client.pk), "updates": updates[:MAX_UPDATES], "more": len(updates) > MAX_UPDATES,
        }  # fmt: skip
        return Response(body)
