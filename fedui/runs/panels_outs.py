"""What the API tells to the panels of a run's page."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from fedui.runs.models import MetricSource, RoundStatus
from fedui.runs.outs import ParticipationOut, RunClientOut


class ColumnOut(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    attempt = serializers.IntegerField(help_text="The newest.")
    status = serializers.ChoiceField(choices=RoundStatus.choices)
    spread = serializers.DictField(help_text="By measure its quantiles over the clients, and its deviation.")


class HeatOut(serializers.Serializer[Any]):
    rounds = ColumnOut(many=True)
    total = serializers.IntegerField(help_text="Clients that took part in these rounds.")
    found = serializers.IntegerField()
    page = serializers.IntegerField(help_text="0: the overview.")
    pages = serializers.IntegerField()
    overview = serializers.BooleanField(help_text="The clients are those that were most often unlike the others.")
    quantiles = serializers.ListField(child=serializers.FloatField(), help_text="Which each spread has.")
    clients = RunClientOut(many=True)
    cells = serializers.DictField(
        child=serializers.ListField(child=serializers.ListField()),
        help_text="By client: index of the round, outcome, norm, cosine, loss, seconds, bytes, whether it was flagged.",
    )


class ParticipationsOut(serializers.Serializer[Any]):
    participations = ParticipationOut(many=True)


class HistoryRoundOut(ColumnOut):
    cell = serializers.ListField(help_text="Outcome, norm, cosine, loss, seconds, bytes, whether it was flagged.")
    reason = serializers.CharField()
    flag_reason = serializers.CharField()


class HistoryOut(serializers.Serializer[Any]):
    client = RunClientOut()
    quantiles = serializers.ListField(child=serializers.FloatField())
    rounds = HistoryRoundOut(many=True)


class ChangeOut(serializers.Serializer[Any]):
    size = serializers.IntegerField(help_text="Numbers.")
    norm = serializers.FloatField(help_text="Of the difference.")
    change = serializers.FloatField(allow_null=True, help_text="Relative to the norm before.")
    cosine = serializers.FloatField(allow_null=True)
    largest = serializers.FloatField()


class TensorChangeOut(ChangeOut):
    name = serializers.CharField()


class LayerChangeOut(TensorChangeOut):
    tensors = TensorChangeOut(many=True)


class DiffOut(serializers.Serializer[Any]):
    before = serializers.IntegerField(help_text="A round.")
    after = serializers.IntegerField()
    total = ChangeOut()
    layers = LayerChangeOut(many=True)


class BandOut(serializers.Serializer[Any]):
    value = serializers.FloatField()
    low = serializers.FloatField()
    high = serializers.FloatField()


class ReachedOut(serializers.Serializer[Any]):
    expected = serializers.IntegerField(allow_null=True)
    earliest = serializers.IntegerField(allow_null=True)
    latest = serializers.IntegerField(allow_null=True)


class OutlookOut(serializers.Serializer[Any]):
    metric = serializers.CharField()
    source = serializers.ChoiceField(choices=MetricSource.choices)  # type: ignore[assignment]  # a field is no attribute
    target = serializers.FloatField(allow_null=True)
    end = BandOut(allow_null=True, help_text="Seconds until the run has ended.")
    end_refusal = serializers.CharField(help_text="Why the end isn't told.")
    curve = serializers.ListField(
        child=serializers.ListField(child=serializers.FloatField()), help_text="Round, value, low, high."
    )
    curve_refusal = serializers.CharField()
    reached = ReachedOut(allow_null=True, help_text="The rounds in which the target is met; null: not in this run.")
