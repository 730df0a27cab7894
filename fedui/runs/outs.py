"""What the API tells of runs. The payloads are made in `fedui.runs.serialize`, for sockets too; these classes say what is in them."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from fedui.api.serializers import Body
from fedui.runs import serialize
from fedui.runs.models import CommandKind, Outcome, Priority, RoundStatus, RunStatus
from fedui.runs.services import MAX_NAME_LENGTH, MAX_RETRIES, MAX_ROUNDS, MAX_SEED


class Told(serializers.Serializer[Any]):
    """Its fields describe what `payload` makes; a test compares them."""

    payload: ClassVar[Any]
    """A function of `fedui.runs.serialize`."""

    def to_representation(self, instance: Any) -> dict[str, Any]:
        told: dict[str, Any] = type(self).payload(instance)
        return told


class StateOut(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="A status, or scheduled, waiting, stalled, recovering.")
    label = serializers.CharField()  # type: ignore[assignment]  # a field is no attribute
    detail = serializers.CharField()
    text = serializers.CharField()


class OriginOut(serializers.Serializer[Any]):
    run = serializers.IntegerField()
    name = serializers.CharField()
    round = serializers.IntegerField()
    sha256 = serializers.CharField()


class RunAppOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.CharField()


class RunStrategyOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    version = serializers.IntegerField()
    config = serializers.DictField()


class RunOut(Told):
    payload = staticmethod(serialize.run_payload)

    id = serializers.IntegerField()
    name = serializers.CharField()
    federation = serializers.CharField()
    status = serializers.ChoiceField(choices=RunStatus.choices)
    state = StateOut(help_text="What a reader should know of it now.")
    reason = serializers.CharField(help_text="Why it ended, or what it waits for.")
    priority = serializers.ChoiceField(choices=Priority.choices)
    start_at = serializers.DateTimeField(allow_null=True, help_text="While queued: not before.")
    max_retries = serializers.IntegerField()
    origin = OriginOut(allow_null=True, help_text="The model of another run that it began with.")
    app = RunAppOut()
    strategy = RunStrategyOut()
    seed = serializers.IntegerField()
    num_rounds = serializers.IntegerField()
    rounds_done = serializers.IntegerField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)


class RoundOut(Told):
    payload = staticmethod(serialize.round_payload)

    number = serializers.IntegerField()
    attempt = serializers.IntegerField()
    status = serializers.ChoiceField(choices=RoundStatus.choices)
    reason = serializers.CharField()
    started_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    committed_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    expected = serializers.IntegerField(help_text="Updates that were asked for.")
    received = serializers.IntegerField()
    bytes_up = serializers.IntegerField()
    bytes_down = serializers.IntegerField()


class ParticipationOut(Told):
    payload: ClassVar[Any] = staticmethod(serialize.participation_payload)

    round = serializers.IntegerField()
    attempt = serializers.IntegerField()
    client = serializers.UUIDField()
    outcome = serializers.ChoiceField(choices=Outcome.choices)
    reason = serializers.CharField()
    download_seconds = serializers.FloatField(allow_null=True)
    train_seconds = serializers.FloatField(allow_null=True)
    upload_seconds = serializers.FloatField(allow_null=True)
    bytes_down = serializers.IntegerField()
    bytes_up = serializers.IntegerField()
    num_examples = serializers.IntegerField(allow_null=True)
    replaces = serializers.UUIDField(allow_null=True, help_text="Who had dropped out, and in whose place it was asked.")
    steps_done = serializers.IntegerField(allow_null=True)
    steps_planned = serializers.IntegerField(allow_null=True)
    metrics = serializers.DictField(help_text="What the agent reported of its training.")
    evaluation_loss = serializers.FloatField(allow_null=True)
    evaluation_num_examples = serializers.IntegerField(allow_null=True)
    evaluation_metrics = serializers.DictField()
    update_norm = serializers.FloatField(allow_null=True)
    update_largest = serializers.FloatField(allow_null=True)
    norm_ratio = serializers.FloatField(allow_null=True)
    cosine_to_aggregate = serializers.FloatField(allow_null=True)
    z_norm = serializers.FloatField(allow_null=True)
    z_cosine = serializers.FloatField(allow_null=True)
    flagged = serializers.BooleanField(help_text="Whether the update was unlike the others of its round.")
    flag_reason = serializers.CharField()


class RunParticipationOut(ParticipationOut):
    payload: ClassVar[Any] = staticmethod(lambda one: {"run": one.round.run_id, **serialize.participation_payload(one)})

    run = serializers.IntegerField()


class ModelOut(Told):
    payload = staticmethod(serialize.model_payload)

    round = serializers.IntegerField()
    sha256 = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes.")
    removed_at = serializers.DateTimeField(allow_null=True, help_text="When retention removed the file.")


class CommandOut(Told):
    payload = staticmethod(serialize.command_payload)

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=CommandKind.choices)
    label = serializers.CharField()  # type: ignore[assignment]  # a field is no attribute
    actor = serializers.CharField()
    at = serializers.DateTimeField()
    round = serializers.IntegerField(help_text="The last committed round at that time.")
    data = serializers.DictField()  # type: ignore[assignment]  # a field is no attribute


class EventOut(Told):
    payload = staticmethod(serialize.event_payload)

    seq = serializers.IntegerField()
    at = serializers.DateTimeField()
    kind = serializers.CharField()
    level = serializers.CharField()
    round = serializers.IntegerField(allow_null=True)
    client = serializers.UUIDField(allow_null=True)
    message = serializers.CharField()
    data = serializers.DictField(allow_null=True, help_text="Null: it was left out.")  # type: ignore[assignment]  # a field is no attribute


class RunClientOut(Told):
    payload = staticmethod(serialize.client_payload)

    id = serializers.UUIDField()
    name = serializers.CharField()
    number = serializers.IntegerField()


class OriginBody(Body):
    run = serializers.IntegerField(min_value=1, max_value=2**62)
    round = serializers.IntegerField(min_value=0, max_value=MAX_ROUNDS)


class NewRun(Body):
    name = serializers.CharField(max_length=MAX_NAME_LENGTH)
    app = serializers.CharField(max_length=63)
    app_version = serializers.CharField(max_length=32)
    strategy = serializers.CharField(max_length=63)
    strategy_version = serializers.IntegerField(
        min_value=1, max_value=2**31 - 1, required=False, help_text="Its number; the newest, where there is none."
    )
    num_rounds = serializers.IntegerField(min_value=1, max_value=MAX_ROUNDS)
    seed = serializers.IntegerField(min_value=0, max_value=MAX_SEED, default=1)
    origin = OriginBody(required=False, help_text="Begin with the model of a committed round of another run.")
    priority = serializers.ChoiceField(choices=Priority.choices, default=Priority.NORMAL)
    start_at = serializers.DateTimeField(required=False, help_text="Not before.")
    max_retries = serializers.IntegerField(min_value=0, max_value=MAX_RETRIES, default=0)


class NewCommand(Body):
    command = serializers.ChoiceField(choices=CommandKind.choices)
    key = serializers.CharField(
        max_length=64, required=False, default="", allow_blank=True,
        help_text="The same key again is the same order, for ever; an Idempotency-Key does that for a day.",
    )  # fmt: skip
    at_once = serializers.BooleanField(required=False, help_text="pause: drop the round in progress.")
    start_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="schedule, clone, fork: not before."
    )
    priority = serializers.ChoiceField(choices=Priority.choices, required=False, help_text="prioritise, clone, fork.")
    num_rounds = serializers.IntegerField(
        min_value=1, max_value=MAX_ROUNDS, required=False, help_text="extend, fork: in all."
    )
    name = serializers.CharField(max_length=MAX_NAME_LENGTH, required=False, help_text="clone, fork.")
    max_retries = serializers.IntegerField(min_value=0, max_value=MAX_RETRIES, required=False, help_text="clone, fork.")
    round = serializers.IntegerField(
        min_value=0, max_value=MAX_ROUNDS, required=False, help_text="fork: whose model it begins with."
    )
    strategy_version = serializers.IntegerField(
        min_value=1, max_value=2**62, required=False, help_text="fork: the id of a strategy's version."
    )
    seed = serializers.IntegerField(min_value=0, max_value=MAX_SEED, required=False, help_text="fork.")
    client = serializers.CharField(max_length=200, required=False, help_text="weigh: the id or the name of a client.")
    percent = serializers.IntegerField(
        min_value=0, max_value=100, required=False, help_text="weigh: what it counts for; 0 excludes it."
    )
    why = serializers.CharField(max_length=200, required=False, allow_blank=True, help_text="weigh.")


class ObeyedOut(serializers.Serializer[Any]):
    run = RunOut(help_text="The run as it is now; of clone and fork the new one.")
