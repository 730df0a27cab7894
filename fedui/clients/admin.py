from __future__ import annotations

from django.contrib import admin

from fedui.admin import ReadOnlyAdmin
from fedui.clients.models import Admission, Certificate, Client, Connection, EnrolmentToken, VitalsSample


@admin.register(Client)
class ClientAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "status", "connected", "last_seen_at", "agent_version")
    list_filter = ("status", "connected", "federation")
    list_select_related = ("federation",)
    search_fields = ("name", "id")


@admin.register(Certificate)
class CertificateAdmin(ReadOnlyAdmin):
    list_display = ("serial", "client", "issued_at", "not_after", "superseded_at", "revoked_at")
    list_filter = ("client__federation",)
    list_select_related = ("client",)
    search_fields = ("serial", "fingerprint", "client__name")


@admin.register(EnrolmentToken)
class EnrolmentTokenAdmin(ReadOnlyAdmin):
    list_display = ("key_id", "federation", "note", "uses", "max_uses", "expires_at", "revoked_at")
    list_filter = ("federation",)
    list_select_related = ("federation",)
    search_fields = ("key_id", "note")
    exclude = ("secret_sha256",)


@admin.register(Admission)
class AdmissionAdmin(ReadOnlyAdmin):
    list_display = ("name", "federation", "status", "host", "requested_at", "decided_at", "decided_by")
    list_filter = ("status", "federation")
    list_select_related = ("federation", "decided_by")
    search_fields = ("name", "host", "fingerprint")


@admin.register(Connection)
class ConnectionAdmin(ReadOnlyAdmin):
    list_display = ("client", "opened_at", "closed_at", "ending", "agent_version")
    list_filter = ("ending", "client__federation")
    list_select_related = ("client",)
    search_fields = ("client__name", "session_id")


@admin.register(VitalsSample)
class VitalsSampleAdmin(ReadOnlyAdmin):
    list_display = ("client", "at", "seconds")
    list_filter = ("seconds", "client__federation")
    list_select_related = ("client",)
    search_fields = ("client__name",)
