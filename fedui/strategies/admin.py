from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.strategies.models import Strategy, StrategyVersion


@admin.register(Strategy)
class StrategyAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "description", "created_at")
    list_filter = ("federation",)
    list_select_related = ("federation",)
    search_fields = ("name", "description")


@admin.register(StrategyVersion)
class StrategyVersionAdmin(ReadOnlyAdmin):
    list_display = ("strategy", "number", "created_by", "created_at")
    list_filter = ("strategy__federation",)
    list_select_related = ("strategy", "created_by")
    search_fields = ("strategy__name",)
