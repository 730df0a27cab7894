from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.federations.models import Federation, Invitation, Membership


@admin.register(Federation)
class FederationAdmin(ReadOnlyAdmin):
    list_display = ("name", "slug", "second_factor", "created_at")
    list_filter = ("second_factor", "created_at")
    search_fields = ("name", "slug")


@admin.register(Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = ("user", "federation", "role", "created_at")
    list_filter = ("role", "federation")
    search_fields = ("user__username", "federation__name")


@admin.register(Invitation)
class InvitationAdmin(ReadOnlyAdmin):
    list_display = ("federation", "role", "email", "created_by", "expires_at", "accepted_by")
    list_filter = ("role", "federation")
    search_fields = ("email", "federation__name")
    exclude = ("secret_sha256",)
