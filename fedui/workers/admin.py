from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.workers.models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "address", "serving", "started_at", "expires_at")
    list_filter = ("serving",)
    search_fields = ("host", "address")
