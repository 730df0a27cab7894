from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.reports.models import Share


@admin.register(Share)
class ShareAdmin(ReadOnlyAdmin):
    list_display = ("run", "naming", "note", "created_by", "created_at", "expires_at", "revoked_at", "opened")
    list_filter = ("naming", "run__federation")
    list_select_related = ("run", "created_by")
    search_fields = ("run__name", "note")
    exclude = ("secret_sha256",)
