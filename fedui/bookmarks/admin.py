from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.bookmarks.models import SavedView


@admin.register(SavedView)
class SavedViewAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "owner", "page", "shared", "created_at")
    list_filter = ("page", "shared", "federation")
    list_select_related = ("federation", "owner")
    search_fields = ("name", "owner__username")
