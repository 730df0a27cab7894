from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import models

if TYPE_CHECKING:
    from fedui.accounts.models import User


class Role(models.TextChoices):
    OWNER = "owner", "Owner"
    OPERATOR = "operator", "Operator"
    RESEARCHER = "researcher", "Researcher"
    AUDITOR = "auditor", "Auditor"


class Act(models.TextChoices):
    """What a member may be allowed to do, beyond reading."""

    MANAGE_CLIENTS = "manage_clients", "Enroll and revoke clients"
    MANAGE_STRATEGIES = "manage_strategies", "Define strategies"
    MANAGE_RUNS = "manage_runs", "Start and stop runs"
    MANAGE_SETTINGS = "manage_settings", "Change settings and what is kept"
    READ_AUDIT = "read_audit", "Read the audit log"


ALLOWED: dict[Role, frozenset[Act]] = {
    Role.OWNER: frozenset(Act),
    Role.OPERATOR: frozenset(Act),
    Role.RESEARCHER: frozenset({Act.MANAGE_STRATEGIES, Act.MANAGE_RUNS}),
    Role.AUDITOR: frozenset({Act.READ_AUDIT}),
}


class FederationQuerySet(models.QuerySet["Federation"]):
    def visible_to(self, user: User | AnonymousUser) -> FederationQuerySet:
        """The federations `user` is a member of: the one rule of visibility, for pages, API and sockets."""
        return self.filter(memberships__user_id=user.pk) if user.is_authenticated and user.is_active else self.none()


class Federation(models.Model):
    """A tenant: data owners who train models together, with members, clients, strategies and runs of their own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = FederationQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["federation", "user"], name="one_membership_per_user")]

    def __str__(self) -> str:
        return f"{self.user} in {self.federation} ({self.role})"

    def may(self, act: Act) -> bool:
        return act in ALLOWED[Role(self.role)]
