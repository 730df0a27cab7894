from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.analytics.models import Query


@admin.register(Query)
class QueryAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "federation", "app", "status", "lease_owner", "created_at")
    list_filter = ("status", "federation")
    list_select_related = ("federation", "app")
    search_fields = ("app__name", "reason", "lease_owner")
