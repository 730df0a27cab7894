from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin

from fedui.federations.models import Federation, Membership

if TYPE_CHECKING:
    _Inline = admin.TabularInline[Membership, Federation]
    _FederationAdmin = admin.ModelAdmin[Federation]
    _MembershipAdmin = admin.ModelAdmin[Membership]
else:
    _Inline = admin.TabularInline
    _FederationAdmin = _MembershipAdmin = admin.ModelAdmin


class MembershipInline(_Inline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Federation)
class FederationAdmin(_FederationAdmin):
    list_display = ("name", "slug", "created_at")
    search_fields = ("name", "slug")
    inlines = (MembershipInline,)


@admin.register(Membership)
class MembershipAdmin(_MembershipAdmin):
    list_display = ("user", "federation", "role", "created_at")
    list_filter = ("role", "federation")
    search_fields = ("user__username", "federation__name")
    autocomplete_fields = ("user", "federation")
