"""What the panels of a run's page ask for by themselves: parts of a run that are too large to be told as a whole."""

from __future__ import annotations

from uuid import UUID

from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives
from fedui.clients.models import Client
from fedui.errors import ErrorCode
from fedui.federations.models import Act
from fedui.runs.api import RunPanel
from fedui.runs.heat import Window, heat_payload, history_payload
from fedui.runs.model_diff import diff_payload
from fedui.runs.models import MetricSource
from fedui.runs.outlook import outlook_payload
from fedui.runs.panels_outs import DiffOut, HeatOut, HistoryOut, OutlookOut, ParticipationsOut
from fedui.runs.services import MAX_ROUNDS
from fedui.runs.snapshot import participations_payload


class WindowQuery(Body):
    until = serializers.IntegerField(
        min_value=0, max_value=MAX_ROUNDS, required=False, default=None, help_text="The last round; else the newest."
    )
    page = serializers.IntegerField(min_value=0, max_value=1_000_000, default=0, help_text="0: the overview.")
    find = serializers.CharField(max_length=120, default="", allow_blank=True, help_text="Part of a client's name.")


class RunHeat(RunPanel):
    """The last 60 rounds up to `until`, by client; of more than 60 an overview, or a `page`, or those whose names hold `find`."""

    verbs = {"GET": "get_heat"}
    acts = {"GET": Act.READ}
    asks = WindowQuery
    gives = {"GET": Gives(HeatOut)}

    def get(self, request: Request, run_id: int) -> Response:
        return Response(heat_payload(self.run(), Window(**self.query())))


class RoundParticipations(RunPanel):
    """Participations of a round and of those before it, as many as a snapshot has."""

    noun = "rounds"
    verbs = {"GET": "get_participations"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(ParticipationsOut)}

    def get(self, request: Request, run_id: int, round_number: int) -> Response:
        return Response(participations_payload(self.run(), round_number))


class ClientHistory(RunPanel):
    """One client in all rounds of a run, and how the others were spread."""

    verbs = {"GET": "get_client"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(HistoryOut)}

    def get(self, request: Request, run_id: int, client_id: UUID) -> Response:
        run = self.run()
        return Response(history_payload(run, get_object_or_404(Client, pk=client_id, federation=run.federation_id)))


class ModelDiff(RunPanel):
    """How far the model went from one round to another, by layer and tensor."""

    noun = "models"
    verbs = {"GET": "get_diff"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(DiffOut)}
    refusals = {"GET": (ErrorCode.GONE,)}

    def get(self, request: Request, run_id: int, before: int, after: int) -> Response:
        models = self.run().models.all()
        first, second = (get_object_or_404(models, round_number=number) for number in (before, after))
        return Response(diff_payload(first, second))


class OutlookQuery(Body):
    metric = serializers.CharField(max_length=63, default="accuracy")
    source = serializers.ChoiceField(choices=MetricSource.choices, default=MetricSource.SERVER)  # type: ignore[assignment]  # a field is no attribute
    target = serializers.FloatField(required=False, default=None, help_text="When will the metric be as good as this?")


class RunOutlook(RunPanel):
    """When the run will end, and how a metric goes on: each with a band, or the reason why nobody can tell."""

    verbs = {"GET": "get_outlook"}
    acts = {"GET": Act.READ}
    asks = OutlookQuery
    gives = {"GET": Gives(OutlookOut)}

    def get(self, request: Request, run_id: int) -> Response:
        return Response(outlook_payload(self.run(), **self.query()))
