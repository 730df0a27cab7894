"""What the API tells to the panels of a run's page."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.fields import Field

from fedui.runs.models import MetricSource, Outcome, RoundStatus
from fedui.runs.outs import CommandOut, RunClientOut, RunOut


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


def _column(child: Field[Any, Any, Any, Any], **words: Any) -> serializers.ListField:
    """The values of a table in one column."""
    return serializers.ListField(child=child, **words)


class RoundColumnsOut(serializers.Serializer[Any]):
    number = _column(serializers.IntegerField())
    attempt = _column(serializers.IntegerField())
    status = _column(serializers.ChoiceField(choices=RoundStatus.choices))
    started_at = _column(serializers.DateTimeField())
    closed_at = _column(serializers.DateTimeField(allow_null=True))
    committed_at = _column(serializers.DateTimeField(allow_null=True))
    ended_at = _column(serializers.DateTimeField(allow_null=True))
    expected = _column(serializers.IntegerField(), help_text="Updates that were asked for.")
    received = _column(serializers.IntegerField())
    bytes_up = _column(serializers.IntegerField())
    bytes_down = _column(serializers.IntegerField())
    bytes_total = _column(serializers.IntegerField(), help_text="Both ways, of all rounds up to this one.")


class ParticipationColumnsOut(serializers.Serializer[Any]):
    round = _column(serializers.IntegerField())
    attempt = _column(serializers.IntegerField())
    client = _column(serializers.UUIDField())
    outcome = _column(serializers.ChoiceField(choices=Outcome.choices))
    reason = _column(serializers.CharField())
    replaces = _column(serializers.UUIDField(allow_null=True))
    steps_done = _column(serializers.IntegerField(allow_null=True))
    steps_planned = _column(serializers.IntegerField(allow_null=True))
    bytes_up = _column(serializers.IntegerField())
    flagged = _column(serializers.BooleanField(), help_text="Whether the update was unlike the others of its round.")
    flag_reason = _column(serializers.CharField())
    download_seconds = _column(serializers.FloatField(allow_null=True))
    train_seconds = _column(serializers.FloatField(allow_null=True))
    upload_seconds = _column(serializers.FloatField(allow_null=True))
    loss = _column(serializers.FloatField(allow_null=True), help_text="In training, as the agent reported it.")
    norm_ratio = _column(serializers.FloatField(allow_null=True))
    cosine_to_aggregate = _column(serializers.FloatField(allow_null=True))


class ParticipationsOut(serializers.Serializer[Any]):
    participations = ParticipationColumnsOut()


class CurveOut(serializers.Serializer[Any]):
    source = serializers.ChoiceField(choices=MetricSource.choices)  # type: ignore[assignment]  # a field is no attribute
    name = serializers.CharField()
    rounds = _column(serializers.IntegerField())
    values = _column(serializers.FloatField())


class ModelColumnsOut(serializers.Serializer[Any]):
    round = _column(serializers.IntegerField())
    sha256 = _column(serializers.CharField())
    size = _column(serializers.IntegerField(), help_text="Bytes.")
    removed_at = _column(serializers.DateTimeField(allow_null=True), help_text="When retention removed the file.")


class ClientColumnsOut(serializers.Serializer[Any]):
    id = _column(serializers.UUIDField())
    name = _column(serializers.CharField())
    number = _column(serializers.IntegerField())


class SnapshotOut(serializers.Serializer[Any]):
    last_seq = serializers.IntegerField(help_text="Follow the events from here on.")
    run = RunOut()
    rounds = RoundColumnsOut(help_text="Of thousands the last, and of the others those whose figures are told.")
    curves = CurveOut(many=True, help_text="Long ones are thinned; what stands out stays.")
    participations = ParticipationColumnsOut(help_text="Of the last rounds.")
    models = ModelColumnsOut()
    commands = CommandOut(many=True)
    clients = ClientColumnsOut()


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
