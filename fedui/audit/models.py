from __future__ import annotations

from django.conf import settings
from django.db import models

from fedui.federations.models import Federation


class AuditEvent(models.Model):
    """Who did what, to what, from where. Written in the transaction of the act, by `fedui.audit.services.record`."""

    federation = models.ForeignKey(Federation, null=True, on_delete=models.PROTECT, related_name="audit_events")
    at = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    actor_name = models.CharField(max_length=150)
    address = models.GenericIPAddressField(null=True)
    action = models.CharField(max_length=64)
    subject = models.CharField(max_length=200)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["federation", "-id"], name="audit_by_federation")]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.subject}"
