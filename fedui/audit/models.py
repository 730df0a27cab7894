from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from fedui.audit import chain
from fedui.federations.models import Federation


class Via(models.TextChoices):
    WEB = "web", "Web"
    API = "api", "REST API"
    COMMAND = "command", "Command line"
    AGENT = "agent", "Agent"
    ENGINE = "engine", "Engine"


class AuditEvent(models.Model):
    """Who did what, to what, from where. Written in the transaction of the act, by `fedui.audit.services.record`.

    The database refuses changes (`fedui.audit.guards`). Entries outlive the federation that they tell of.
    """

    federation = models.ForeignKey(
        Federation, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="audit_events"
    )
    at = models.DateTimeField(default=timezone.now)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    actor_name = models.CharField(max_length=150)
    address = models.GenericIPAddressField(null=True)
    via = models.CharField(max_length=8, choices=Via, blank=True)
    action = models.CharField(max_length=64)
    subject = models.CharField(max_length=200)
    details = models.JSONField(default=dict)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    nonce = models.CharField(max_length=32)
    previous_hash = models.CharField(max_length=64)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["federation", "-id"], name="audit_by_federation"),
            models.Index(fields=["federation", "action", "-id"], name="audit_by_action"),
        ]

    def __str__(self) -> str:
        return f"{self.actor_name} {self.action} {self.subject}"

    def content(self) -> dict[str, Any]:
        """The entry as it is hashed and exported."""
        values = {name: getattr(self, name) for name in chain.CONTENT if name not in {"federation", "actor", "at"}}
        return values | {
            "federation": str(self.federation_id) if self.federation_id else None,
            "actor": self.actor_id,
            "at": chain.timestamp(self.at),
        }

    def exported(self) -> dict[str, Any]:
        return self.content() | {"hash": self.hash}

    def changes(self) -> list[tuple[str, Any, Any]]:
        """Field, value before and value after, of what differs."""
        before, after = self.before or {}, self.after or {}
        names = [*before, *(name for name in after if name not in before)]
        return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


class ChainCheck(models.Model):
    """The outcome of one verification of the whole log."""

    at = models.DateTimeField(auto_now_add=True)
    number = models.PositiveBigIntegerField()
    head = models.CharField(max_length=64)
    entries = models.PositiveBigIntegerField()
    faults = models.JSONField(default=list)

    class Meta:
        ordering = ["-id"]
        get_latest_by = "id"

    def __str__(self) -> str:
        return f"Check of {self.entries} entries"


class ChainHead(models.Model):
    """The last entry of the chain: one row, whose lock puts transactions that write entries in order.

    `seal` is a keyed hash of number and hash. Who can write to the database but doesn't have the key can't shorten the log,
    or forge it, and make a seal that fits.
    """

    number = models.PositiveBigIntegerField(default=0)
    hash = models.CharField(max_length=64, default=chain.GENESIS)
    seal = models.CharField(max_length=64, blank=True)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"
