from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.registry.models import RegisteredModel, RegisteredVersion, StageChange


@admin.register(RegisteredModel)
class RegisteredModelAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "created_by", "created_at")
    list_filter = ("federation",)
    list_select_related = ("federation", "created_by")
    search_fields = ("name", "description")


@admin.register(RegisteredVersion)
class RegisteredVersionAdmin(ReadOnlyAdmin):
    list_display = ("model", "number", "status", "source", "promoted_by", "promoted_at", "checked_at")
    list_filter = ("status", "model__federation")
    list_select_related = ("model", "source__run", "promoted_by")
    search_fields = ("model__name", "notes", "source__sha256")


@admin.register(StageChange)
class StageChangeAdmin(ReadOnlyAdmin):
    list_display = ("version", "before", "after", "actor_name", "at")
    list_filter = ("after", "version__model__federation")
    list_select_related = ("version__model",)
    search_fields = ("version__model__name", "actor_name", "note")
