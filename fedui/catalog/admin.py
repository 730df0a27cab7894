from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.catalog.models import App


@admin.register(App)
class AppAdmin(ReadOnlyAdmin):
    list_display = ("name", "version", "federation", "first_offered_at")
    list_filter = ("federation",)
    list_select_related = ("federation",)
    search_fields = ("name", "version")
