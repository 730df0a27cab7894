from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.alerts.models import Alert, AlertRule, Delivery, Webhook


@admin.register(AlertRule)
class AlertRuleAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "kind", "severity", "enabled", "evaluated_at")
    list_filter = ("kind", "federation")
    list_select_related = ("federation",)
    search_fields = ("name",)


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ("title", "federation", "kind", "severity", "status", "opened_at", "resolved_at")
    list_filter = ("status", "kind", "federation")
    list_select_related = ("federation",)
    search_fields = ("title", "subject")


@admin.register(Webhook)
class WebhookAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "enabled", "created_at")
    list_filter = ("federation",)
    list_select_related = ("federation",)
    search_fields = ("name",)
    exclude = ("secret", "former_secret", "url")


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    list_display = ("subject", "federation", "webhook", "recipient", "status", "attempts", "created_at")
    list_filter = ("status", "federation")
    list_select_related = ("federation", "webhook", "recipient")
    search_fields = ("subject",)
