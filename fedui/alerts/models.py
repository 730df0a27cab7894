from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fedui.alerts.kinds import TRAITS, Kind, Severity, Traits, in_words
from fedui.clients.models import Client
from fedui.federations.models import Federation, Membership, Role
from fedui.runs.models import Run


class Webhook(models.Model):
    """An https address of somebody's that is told of alerts. What its messages are signed by is kept encrypted."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="webhooks")
    name = models.CharField(max_length=80)
    url = models.CharField(max_length=500)
    enabled = models.BooleanField(default=True)
    secret = models.TextField(help_text="Encrypted.")
    former_secret = models.TextField(blank=True, help_text="Encrypted; signs beside the new one for a while.")
    rotated_at = models.DateTimeField(null=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["federation", "name"], name="webhook_name_unique_in_federation")]

    def __str__(self) -> str:
        return f"Webhook {self.name}"


class AlertRule(models.Model):
    """What is watched for in a federation, and who is told."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="alert_rules")
    name = models.CharField(max_length=120)
    kind = models.CharField(max_length=32, choices=Kind)
    settings = models.JSONField(default=dict)
    severity = models.PositiveSmallIntegerField(choices=Severity)
    enabled = models.BooleanField(default=True)
    email_roles = models.JSONField(default=list, help_text="Members with these roles get an e-mail.")
    webhooks = models.ManyToManyField(Webhook, related_name="rules")
    tell_resolved = models.BooleanField(default=True, help_text="Whether the end of an alert is told too.")
    every_minutes = models.PositiveSmallIntegerField(default=5, help_text="At most one message in so many minutes.")
    muted_until = models.DateTimeField(null=True)
    watches_from = models.DateTimeField(default=timezone.now, help_text="Events before are old news.")
    evaluated_at = models.DateTimeField(null=True)
    told_at = models.DateTimeField(null=True, help_text="When its last message was written.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["federation", "name"], name="rule_name_unique_in_federation")]

    def __str__(self) -> str:
        return f"Rule {self.name}"

    @property
    def traits(self) -> Traits:
        return TRAITS[Kind(self.kind)]

    @property
    def words(self) -> str:
        return in_words(Kind(self.kind), self.settings)

    @property
    def is_muted(self) -> bool:
        return self.muted_until is not None and self.muted_until > timezone.now()

    @property
    def told_roles(self) -> list[str]:
        return [f"{Role(role).label.lower()}s" for role in self.email_roles]


class AlertStatus(models.TextChoices):
    FIRING = "firing", "Open"
    RESOLVED = "resolved", "Resolved"


class AlertQuerySet(models.QuerySet["Alert"]):
    def visible_to(self, membership: Membership) -> AlertQuerySet:
        """A site admin sees those of their own clients, others all of the federation."""
        found = self.filter(federation=membership.federation_id)
        if membership.sees_own_clients_only:
            return found.filter(client__in=Client.objects.visible_to(membership))
        return found

    def open(self) -> AlertQuerySet:
        return self.filter(status=AlertStatus.FIRING)

    def waiting(self, now: datetime) -> AlertQuerySet:
        """Open ones that nobody has taken note of: what the count in the navigation counts."""
        muted = Q(muted_until__gt=now) | Q(rule__muted_until__gt=now)
        return self.open().filter(acknowledged_at=None).exclude(muted)


class Alert(models.Model):
    """One thing that one rule has found: open for as long as it lasts, at most one a rule and subject at a time."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="alerts")
    rule = models.ForeignKey(AlertRule, null=True, on_delete=models.SET_NULL, related_name="alerts")
    kind = models.CharField(max_length=32, choices=Kind)
    severity = models.PositiveSmallIntegerField(choices=Severity)
    subject = models.CharField(max_length=120, help_text="What it is about, for grouping: run:7, client:<id>, server.")
    title = models.CharField(max_length=200)
    detail = models.TextField(blank=True)
    client = models.ForeignKey(Client, null=True, on_delete=models.SET_NULL, related_name="alerts")
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="alerts")
    status = models.CharField(max_length=16, choices=AlertStatus, default=AlertStatus.FIRING)
    fired_at = models.DateTimeField(help_text="Since when it has been so.")
    opened_at = models.DateTimeField(default=timezone.now, help_text="When it was noticed.")
    resolved_at = models.DateTimeField(null=True)
    times = models.PositiveIntegerField(default=1, help_text="How often it has begun anew.")
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    muted_until = models.DateTimeField(null=True)
    told_at = models.DateTimeField(
        null=True, help_text="When a message was written of it, or it was clear that none would be."
    )
    end_told_at = models.DateTimeField(null=True)

    objects = AlertQuerySet.as_manager()

    class Meta:
        ordering = ["-opened_at", "-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["rule", "subject"], condition=Q(status="firing"), name="one_open_alert_per_rule_and_subject"
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["federation", "status", "-opened_at"], name="alerts_by_federation"),
            models.Index(fields=["rule", "subject", "-fired_at"], name="alerts_by_subject"),
        ]

    def __str__(self) -> str:
        return f"Alert {self.title}"

    @property
    def is_open(self) -> bool:
        return self.status == AlertStatus.FIRING

    @property
    def is_muted(self) -> bool:
        return self.muted_until is not None and self.muted_until > timezone.now()


class DeliveryStatus(models.TextChoices):
    PENDING = "pending", "Waiting"
    SENDING = "sending", "Under way"
    DELIVERED = "delivered", "Delivered"
    FAILED = "failed", "Given up"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def under_way(self, now: datetime) -> DeliveryQuerySet:
        return self.filter(status=DeliveryStatus.SENDING, claimed_until__gt=now)

    def due(self, now: datetime) -> DeliveryQuerySet:
        """To be sent now: waiting, or taken by a process that was lost."""
        lost = Q(status=DeliveryStatus.SENDING, claimed_until__lte=now)
        return self.filter(Q(status=DeliveryStatus.PENDING, next_at__lte=now) | lost)


class Delivery(models.Model):
    """One message to one receiver, and what became of it. Written in the transaction that found what it tells."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="deliveries")
    rule = models.ForeignKey(AlertRule, null=True, on_delete=models.SET_NULL, related_name="deliveries")
    webhook = models.ForeignKey(Webhook, null=True, on_delete=models.CASCADE, related_name="deliveries")
    recipient = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.CASCADE, related_name="+")
    subject = models.CharField(max_length=200)
    body = models.TextField(help_text="As it is sent: JSON to a webhook, text by e-mail.")
    status = models.CharField(max_length=16, choices=DeliveryStatus, default=DeliveryStatus.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(default=timezone.now)
    claimed_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)
    log = models.JSONField(default=list, help_text="What came of each attempt.")
    redelivery_of = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="+")

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ["-created_at", "-pk"]
        indexes: ClassVar = [
            models.Index(fields=["status", "next_at"], name="deliveries_due"),
            models.Index(fields=["federation", "-created_at"], name="deliveries_by_federation"),
        ]

    def __str__(self) -> str:
        return f"Delivery {self.subject}"

    @property
    def last(self) -> dict[str, object]:
        """What came of the last attempt; empty before the first."""
        return self.log[-1] if self.log else {}
