from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.audit.models import AuditEvent, ChainCheck, ChainHead


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("id", "at", "actor_name", "action", "subject", "federation", "address", "via")
    list_filter = ("action", "via", "federation")
    list_select_related = ("federation",)
    search_fields = ("actor_name", "subject", "address")
    date_hierarchy = "at"


@admin.register(ChainHead)
class ChainHeadAdmin(ReadOnlyAdmin):
    list_display = ("number", "hash")
    search_fields = ("hash",)


@admin.register(ChainCheck)
class ChainCheckAdmin(ReadOnlyAdmin):
    list_display = ("at", "number", "entries", "faults")
    list_filter = ("at",)
    search_fields = ("head",)
