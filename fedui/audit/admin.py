from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.audit.models import AuditEvent


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor_name", "action", "subject", "federation", "address")
    list_filter = ("action", "federation")
    list_select_related = ("federation",)
    search_fields = ("actor_name", "subject", "address")
    date_hierarchy = "at"
