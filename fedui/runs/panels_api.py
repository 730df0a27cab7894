"""What the panels of a run's page ask for by themselves: parts of a run that are too large to be told as a whole."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.clients.models import Client
from fedui.runs.api import RunView
from fedui.runs.heat import Window, heat_payload, history_payload
from fedui.runs.model_diff import diff_payload
from fedui.runs.models import MetricSource, ModelVersion
from fedui.runs.outlook import outlook_payload
from fedui.runs.snapshot import participations_payload

MAX_ROUND = 2**31 - 1


class WindowQuery(serializers.Serializer[dict[str, Any]]):
    until = serializers.IntegerField(min_value=0, max_value=MAX_ROUND, required=False, default=None)
    page = serializers.IntegerField(min_value=0, max_value=1_000_000, default=0)
    find = serializers.CharField(max_length=120, default="", allow_blank=True)


class RunHeat(RunView):
    """The last 60 rounds up to `until`, by client; of more than 60 an overview, or a `page`, or those whose names hold `find`."""

    def get(self, request: Request, run_id: int) -> Response:
        query = WindowQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        return Response(heat_payload(self.run_of(request, run_id), Window(**query.validated_data)))


class RoundParticipations(RunView):
    """Participations of a round and of those before it, as many as a snapshot has."""

    def get(self, request: Request, run_id: int, round_number: int) -> Response:
        return Response(participations_payload(self.run_of(request, run_id), round_number))


class ClientHistory(RunView):
    """One client in all rounds of a run, and how the others were spread."""

    def get(self, request: Request, run_id: int, client_id: str) -> Response:
        run = self.run_of(request, run_id)
        client = get_object_or_404(Client, pk=client_id, federation=run.federation_id)
        return Response(history_payload(run, client))


class ModelDiff(RunView):
    """How far the model went from one round to another, by layer and tensor."""

    def get(self, request: Request, run_id: int, before: int, after: int) -> Response:
        models = ModelVersion.objects.filter(run=self.run_of(request, run_id))
        first, second = (get_object_or_404(models, round_number=number) for number in (before, after))
        return Response(diff_payload(first, second))


class OutlookQuery(serializers.Serializer[dict[str, Any]]):
    metric = serializers.CharField(max_length=63, default="accuracy")
    target = serializers.FloatField(required=False, default=None, allow_null=True)


class RunOutlook(RunView):
    """When the run will end, and how a metric goes on: each with a band, or the reason why nobody can tell."""

    def get(self, request: Request, run_id: int) -> Response:
        query = OutlookQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        source = request.query_params.get("source", MetricSource.SERVER)
        return Response(outlook_payload(self.run_of(request, run_id), source=source, **query.validated_data))
