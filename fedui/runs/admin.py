from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.runs.models import Event, Metric, ModelVersion, Participation, Round, RoundDigest, Run, RunCommand, RunRules


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "status", "rounds_done", "num_rounds", "lease_owner", "created_at")
    list_filter = ("status", "federation")
    list_select_related = ("federation",)
    search_fields = ("name", "lease_owner")


@admin.register(Round)
class RoundAdmin(ReadOnlyAdmin):
    list_display = ("run", "number", "attempt", "status", "started_at", "committed_at")
    list_filter = ("status", "run__federation")
    list_select_related = ("run",)
    search_fields = ("run__name",)


@admin.register(RoundDigest)
class RoundDigestAdmin(ReadOnlyAdmin):
    list_display = ("round", "expected", "received", "bytes_up", "bytes_down")
    list_filter = ("round__run__federation",)
    list_select_related = ("round__run",)
    search_fields = ("round__run__name",)


@admin.register(Participation)
class ParticipationAdmin(ReadOnlyAdmin):
    list_display = ("round", "client", "outcome", "train_seconds", "num_examples", "bytes_up")
    list_filter = ("outcome", "round__run__federation")
    list_select_related = ("round__run", "client")
    search_fields = ("client__name", "round__run__name", "reason")


@admin.register(Metric)
class MetricAdmin(ReadOnlyAdmin):
    list_display = ("run", "round_number", "source", "name", "value")
    list_filter = ("source", "run__federation")
    list_select_related = ("run",)
    search_fields = ("run__name", "name")


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnlyAdmin):
    list_display = ("run", "round_number", "sha256", "size", "created_at")
    list_filter = ("run__federation",)
    list_select_related = ("run",)
    search_fields = ("run__name", "sha256")


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("run", "seq", "at", "kind", "level", "round_number", "client", "message")
    list_filter = ("level", "kind", "run__federation")
    list_select_related = ("run", "client")
    search_fields = ("run__name", "message")


@admin.register(RunCommand)
class RunCommandAdmin(ReadOnlyAdmin):
    list_display = ("run", "kind", "actor_name", "at", "round_number")
    list_filter = ("kind", "run__federation")
    list_select_related = ("run",)
    search_fields = ("run__name", "actor_name")


@admin.register(RunRules)
class RunRulesAdmin(ReadOnlyAdmin):
    list_display = ("federation", "max_runs", "checkpoints", "checkpoints_every", "progress_days", "log_days")
    list_filter = ("checkpoints",)
    list_select_related = ("federation",)
    search_fields = ("federation__name",)
