from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin

from fedui.accounts.models import User

if TYPE_CHECKING:
    _UserAdmin = UserAdmin[User]
else:
    _UserAdmin = UserAdmin


@admin.register(User)
class AccountAdmin(_UserAdmin):
    """Without groups and single permissions: FedUI's rights are memberships."""

    filter_horizontal = ()
    list_filter = ("is_superuser", "is_active")
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("About", {"fields": ("first_name", "last_name", "email", "last_login", "date_joined")}),
        ("Installation", {"fields": ("is_active", "is_staff", "is_superuser")}),
    )
