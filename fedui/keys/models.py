from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from fedui.federations.models import Act, Federation, Membership

TOUCHED_EVERY = timedelta(minutes=10)
"""How exactly it is known when a key was last used: not each call is worth a write."""


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def usable(self) -> ApiKeyQuerySet:
        return self.filter(revoked_at=None, expires_at__gt=timezone.now(), user__is_active=True)

    def visible_to(self, membership: Membership) -> ApiKeyQuerySet:
        """A member's own; those who manage members see all of the federation."""
        found = self.filter(federation=membership.federation_id)
        return found if membership.may(Act.MANAGE_MEMBERS) else found.filter(user=membership.user_id)


class ApiKey(models.Model):
    """A program's right to act as a member of one federation, within some scopes, for a time. Only a hash of its secret is stored."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="api_keys")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=120)
    key_id = models.CharField(max_length=10, unique=True)
    secret_sha256 = models.CharField(max_length=64)
    scopes = models.JSONField(help_text="Values of fedui.keys.scopes.Scope.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, help_text="Within ten minutes.")
    revoked_at = models.DateTimeField(null=True)

    objects = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"API key {self.prefix} ({self.name})"

    @property
    def prefix(self) -> str:
        """By which people, and logs, know it."""
        return f"fedk_{self.key_id}"

    @property
    def state(self) -> str:
        """usable, revoked or expired."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "usable"

    def touch(self) -> None:
        """It is used."""
        now = timezone.now()
        if self.last_used_at is None or now - self.last_used_at >= TOUCHED_EVERY:
            stale = Q(last_used_at=None) | Q(last_used_at__lte=now - TOUCHED_EVERY)
            ApiKey.objects.filter(stale, pk=self.pk).update(last_used_at=now)
