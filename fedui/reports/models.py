from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from fedui.runs.models import Run


class Naming(models.TextChoices):
    """How a report calls clients and people."""

    NAMES = "names", "By their names"
    NUMBERS = "numbers", "As Client 1, Client 2 …"


class ShareQuerySet(models.QuerySet["Share"]):
    def open(self) -> ShareQuerySet:
        return self.filter(revoked_at=None, expires_at__gt=timezone.now())


class Share(models.Model):
    """A link to the report of one run, for whoever has it. Only a hash of its secret is kept."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="shares")
    secret_sha256 = models.CharField(max_length=64, unique=True)
    naming = models.CharField(max_length=8, choices=Naming, default=Naming.NUMBERS)
    note = models.CharField(max_length=120, blank=True, help_text="Whom it is for.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    opened = models.PositiveIntegerField(default=0, help_text="How often.")
    last_opened_at = models.DateTimeField(null=True)

    objects = ShareQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"Link {self.pk} to the report of {self.run}"

    @property
    def is_open(self) -> bool:
        return self.revoked_at is None and self.expires_at > timezone.now()
