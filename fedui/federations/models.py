from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

if TYPE_CHECKING:
    from fedui.accounts.models import User


class Role(models.TextChoices):
    OWNER = "owner", "Owner"
    OPERATOR = "operator", "Operator"
    RESEARCHER = "researcher", "Researcher"
    AUDITOR = "auditor", "Auditor"
    SITE_ADMIN = "site_admin", "Site admin"


class Act(models.TextChoices):
    """What a member may be allowed to do. What takes no other act takes `READ`: whoever is new here is refused."""

    READ = "read", "See all clients, strategies, runs and models"
    SEE_CLIENTS = "see_clients", "See clients: a site admin their own, others all"
    REVOKE_CLIENTS = "revoke_clients", "Revoke the clients one sees"
    MANAGE_CLIENTS = "manage_clients", "Enroll and revoke clients"
    MANAGE_TOKENS = "manage_tokens", "Make and revoke enrollment tokens"
    MANAGE_STRATEGIES = "manage_strategies", "Define strategies"
    MANAGE_RUNS = "manage_runs", "Start and stop runs"
    PROMOTE_MODELS = "promote_models", "Promote models and describe them"
    RELEASE_MODELS = "release_models", "Move models into production and out of it"
    SHARE_REPORTS = "share_reports", "Share reports of runs by link"
    MANAGE_SETTINGS = "manage_settings", "Change settings and what is kept"
    MANAGE_ALERTS = "manage_alerts", "Set alert rules, acknowledge and mute alerts"
    MANAGE_WEBHOOKS = "manage_webhooks", "Make and remove webhooks, read what was sent"
    READ_AUDIT = "read_audit", "Read the audit log"
    MANAGE_MEMBERS = "manage_members", "Invite members, change their roles and the federation"
    HAVE_KEYS = "have_keys", "Have API keys of one's own"


_READER = frozenset({Act.READ, Act.SEE_CLIENTS, Act.HAVE_KEYS})
ALLOWED: dict[Role, frozenset[Act]] = {
    Role.OWNER: frozenset(Act),
    Role.OPERATOR: frozenset(Act) - {Act.MANAGE_MEMBERS, Act.MANAGE_WEBHOOKS},
    Role.RESEARCHER: _READER | {Act.MANAGE_STRATEGIES, Act.MANAGE_RUNS, Act.PROMOTE_MODELS},
    Role.AUDITOR: _READER | {Act.READ_AUDIT},
    Role.SITE_ADMIN: frozenset({Act.SEE_CLIENTS, Act.REVOKE_CLIENTS, Act.HAVE_KEYS}),
}


class SecondFactor(models.TextChoices):
    """Whose sign-in takes a second factor."""

    NOBODY = "nobody", "Nobody has to"
    MANAGERS = "managers", "Owners and operators"
    EVERYBODY = "everybody", "Everybody"


_MANAGERS = (Role.OWNER, Role.OPERATOR)


def roles_that_may(act: Act) -> list[Role]:
    return [role for role, acts in ALLOWED.items() if act in acts]


class FederationQuerySet(models.QuerySet["Federation"]):
    def visible_to(self, user: User | AnonymousUser, act: Act = Act.READ) -> FederationQuerySet:
        """The federations in which `user` may `act`: the one rule of visibility, for pages, API and sockets."""
        return self.filter(pk__in=Membership.objects.effective(user).that_may(act).values("federation"))

    def with_owners(self) -> models.QuerySet[Any]:
        """Each with `owned`: whether somebody is there who can change its members. Accounts that are deactivated count nowhere."""
        owners = Membership.objects.filter(federation=OuterRef("pk"), role=Role.OWNER, user__is_active=True)
        return self.annotate(owned=Exists(owners))


class Federation(models.Model):
    """A tenant: data owners who train models together, with members, clients, strategies and runs of their own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(max_length=63, unique=True)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    second_factor = models.CharField(max_length=16, choices=SecondFactor, default=SecondFactor.NOBODY)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = FederationQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class MembershipQuerySet(models.QuerySet["Membership"]):
    def effective(self, user: User | AnonymousUser) -> MembershipQuerySet:
        """Those of `user` that count now: none of somebody who is deactivated, or lacks a second factor that is asked for."""
        if not (user.is_authenticated and user.is_active):
            return self.none()
        found = self.filter(user_id=user.pk)
        if user.has_factor_of_provider():
            return found
        has_own = Exists(Authenticator.objects.filter(user=OuterRef("user"), type=Authenticator.Type.TOTP))
        return found.exclude(needing_second_factor(), ~has_own)

    def that_may(self, act: Act) -> MembershipQuerySet:
        return self.filter(role__in=roles_that_may(act))


def needing_second_factor() -> Q:
    """Memberships whose holders need a second factor, by the rule of the installation or of the federation."""
    managers = Q(role__in=_MANAGERS)
    match settings.SECOND_FACTOR:
        case SecondFactor.EVERYBODY:
            return Q()
        case SecondFactor.MANAGERS:
            return managers | Q(federation__second_factor=SecondFactor.EVERYBODY)
    asked_of_managers = managers & Q(federation__second_factor=SecondFactor.MANAGERS)
    return asked_of_managers | Q(federation__second_factor=SecondFactor.EVERYBODY)


class Membership(models.Model):
    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role)
    clients = models.ManyToManyField(
        "clients.Client",
        related_name="site_admins",
        help_text="Which clients are a site admin's; of no use to other roles.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["federation", "user"], name="one_membership_per_user")]

    def __str__(self) -> str:
        return f"{self.user} in {self.federation} ({self.role})"

    def may(self, act: Act) -> bool:
        return act in ALLOWED[Role(self.role)]

    @property
    def sees_own_clients_only(self) -> bool:
        return not self.may(Act.READ)


class InvitationQuerySet(models.QuerySet["Invitation"]):
    def open(self) -> InvitationQuerySet:
        return self.filter(accepted_at=None, revoked_at=None, expires_at__gt=timezone.now())


class Invitation(models.Model):
    """A link that makes whoever opens it first a member, with one role. Only a hash of its secret is kept."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=16, choices=Role)
    clients = models.ManyToManyField("clients.Client", related_name="+")
    email = models.EmailField(blank=True, help_text="Where the link was sent; whoever has the link may use it.")
    secret_sha256 = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)
    accepted_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    revoked_at = models.DateTimeField(null=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"Invitation as {self.get_role_display().lower()}{f' to {self.email}' if self.email else ''}"

    @property
    def state(self) -> str:
        """open, accepted, revoked or expired."""
        if self.accepted_at:
            return "accepted"
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at <= timezone.now() else "open"
