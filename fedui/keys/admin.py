from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.keys.models import ApiKey


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("name", "key_id", "federation", "user", "created_at", "expires_at", "revoked_at")
    list_filter = ("federation",)
    list_select_related = ("federation", "user")
    search_fields = ("name", "key_id", "user__username")
    exclude = ("secret_sha256",)
