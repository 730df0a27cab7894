from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.api.models import StoredAnswer


@admin.register(StoredAnswer)
class StoredAnswerAdmin(ReadOnlyAdmin):
    list_display = ("actor", "key_hash", "expires_at")
    list_filter = ("expires_at",)
    search_fields = ("actor",)
    exclude = ("answer",)
