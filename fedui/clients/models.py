from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import F, Func, Q, TextField, Value
from django.db.models.lookups import Exact
from django.utils import timezone

from aggregator.ports import VITALS
from fedui.federations.models import Federation, Membership
from fedui.transitions import StatefulModel
from protos.identity import spaced

LATE_AFTER = timedelta(seconds=20)
"""Without a sign of life for this long, an agent is late: two missed heartbeats and the time to write them."""
OFFLINE_AFTER = timedelta(seconds=60)
"""How long a sign of life is good for: the length of a client's lease."""
SUPERSEDED_GRACE = timedelta(seconds=60)
WAITING_LIFE = timedelta(days=7)
"""How long a request for admission waits for an operator."""


class Presence(models.TextChoices):
    ONLINE = "online", "Online"
    LATE = "late", "Late"
    OFFLINE = "offline", "Offline"
    SUSPENDED = "suspended", "Suspended"
    REVOKED = "revoked", "Revoked"


class ClientStatus(models.TextChoices):
    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended"
    REVOKED = "revoked", "Revoked"


class LabelValue(Func):
    """The text of one of the `labels`. Django's key transforms take a name of digits for a place in a list."""

    function = "jsonb_extract_path_text"
    output_field = TextField()

    def __init__(self, name: str) -> None:
        super().__init__(F("labels"), Value(name))

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template, joined = "(SELECT value FROM json_each(%(expressions)s))", ") WHERE (key = "
        return self.as_sql(compiler, connection, template=template, arg_joiner=joined, **context)


class ClientQuerySet(models.QuerySet["Client"]):
    def online(self) -> ClientQuerySet:
        return self.filter(status=ClientStatus.ACTIVE, connected=True, last_seen_at__gte=timezone.now() - LATE_AFTER)

    def in_presence(self, presence: Presence) -> ClientQuerySet:
        """As `Client.presence` has it, in the database's words."""
        now = timezone.now()
        if presence in ClientStatus.values:
            return self.filter(status=presence)
        active = self.filter(status=ClientStatus.ACTIVE)
        if presence == Presence.OFFLINE:
            return active.exclude(lease_expires_at__gt=now, last_seen_at__isnull=False)
        leased = active.filter(lease_expires_at__gt=now, last_seen_at__isnull=False)
        online = Q(connected=True, last_seen_at__gt=now - LATE_AFTER)
        return leased.filter(online) if presence == Presence.ONLINE else leased.exclude(online)

    def labelled(self, name: str, value: str) -> ClientQuerySet:
        return self.filter(Exact(LabelValue(name), Value(value)))

    def visible_to(self, membership: Membership) -> ClientQuerySet:
        """The clients of its federation that a member sees: a site admin their own, others all."""
        found = self.filter(federation=membership.federation_id)
        return found.filter(site_admins=membership) if membership.sees_own_clients_only else found


class Client(StatefulModel):
    """An enrolled data owner."""

    TRANSITIONS = {
        ClientStatus.ACTIVE: frozenset({ClientStatus.SUSPENDED, ClientStatus.REVOKED}),
        ClientStatus.SUSPENDED: frozenset({ClientStatus.ACTIVE, ClientStatus.REVOKED}),
        ClientStatus.REVOKED: frozenset(),
    }

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="clients")
    name = models.CharField(max_length=63)
    number = models.PositiveIntegerField(help_text="Order of enrolment; decides the client's colour and shape.")
    status = models.CharField(max_length=16, choices=ClientStatus, default=ClientStatus.ACTIVE)
    labels = models.JSONField(default=dict)
    enrolled_at = models.DateTimeField(auto_now_add=True)
    agent_version = models.CharField(max_length=32, blank=True)
    platform = models.CharField(max_length=120, blank=True)
    protocol_minor = models.PositiveSmallIntegerField(
        null=True,
        help_text="Newest minor version of the protocol that agent and server speak; null before the first connection.",
    )
    apps = models.JSONField(default=list, help_text="What the agent offers: name, version and framework of each app.")
    properties = models.JSONField(default=dict)
    connected = models.BooleanField(default=False, help_text="Has a stream, as far as is known.")
    connected_at = models.DateTimeField(null=True)
    session_id = models.CharField(max_length=32, blank=True, help_text="Of its newest stream, on whatever worker.")
    last_seen_at = models.DateTimeField(null=True)
    lease_expires_at = models.DateTimeField(
        null=True,
        db_index=True,
        help_text="From then on it is offline: OFFLINE_AFTER its last sign of life, or its goodbye.",
    )
    reconnects = models.PositiveIntegerField(default=0)
    machine = models.JSONField(default=dict, help_text="What its machine has: aggregator.ports.Machine.")
    vitals = models.JSONField(default=dict, help_text="What its last heartbeat told: aggregator.ports.Vitals.")
    cards = models.JSONField(default=list, help_text="What its owner publishes of the data: aggregator.ports.DataCard.")
    barred_at = models.DateTimeField(null=True, db_index=True, help_text="When it was last suspended or revoked.")
    unavailable = models.CharField(
        max_length=200, blank=True, help_text="Why the connected agent takes no tasks, in its owner's words."
    )

    objects = ClientQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["federation", "name"], name="client_name_unique_in_federation"),
            models.UniqueConstraint(fields=["federation", "number"], name="client_number_unique_in_federation"),
        ]

    def __str__(self) -> str:
        return f"Client {self.name}"

    @property
    def told(self) -> Mapping[str, float | None]:
        """Its vitals by name, for pages; None for what isn't told."""
        return {name: self.vitals.get(name) for name in VITALS}

    @property
    def presence(self) -> Presence:
        """Online with a stream and a recent sign of life; offline when its lease is over; late in between."""
        if self.status != ClientStatus.ACTIVE:
            return Presence(self.status)
        now = timezone.now()
        if self.lease_expires_at is None or self.last_seen_at is None or self.lease_expires_at <= now:
            return Presence.OFFLINE
        return Presence.ONLINE if self.connected and now - self.last_seen_at < LATE_AFTER else Presence.LATE


class Ending(models.TextChoices):
    LEFT = "left", "The agent was stopped"
    LOST = "lost", "The connection was lost"
    MOVED = "moved", "Replaced by a newer one"
    EXPIRED = "expired", "The worker that held it was lost"


class Connection(models.Model):
    """One stream of a client's agent, from its opening to its end."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="connections")
    session_id = models.CharField(max_length=32, unique=True)
    agent_version = models.CharField(max_length=32, blank=True)
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    ending = models.CharField(max_length=16, choices=Ending, blank=True)

    class Meta:
        ordering = ["-opened_at", "-id"]

    def __str__(self) -> str:
        return f"Connection of {self.client} since {self.opened_at}"

    @property
    def seconds(self) -> float | None:
        """How long it lasted; None while it is open."""
        return (self.closed_at - self.opened_at).total_seconds() if self.closed_at else None


class VitalsSample(models.Model):
    """The means of a client's vitals over some seconds that begin at `at`. Written in bulk, kept for a while."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="samples")
    seconds = models.PositiveSmallIntegerField(help_text="Length.")
    at = models.DateTimeField()
    values = models.JSONField()

    class Meta:
        ordering = ["at"]
        constraints = [models.UniqueConstraint(fields=["client", "seconds", "at"], name="one_sample_a_time")]
        indexes: ClassVar = [models.Index(fields=["seconds", "at"], name="samples_by_age")]

    def __str__(self) -> str:
        return f"Vitals of {self.client} at {self.at}"


class CertificateQuerySet(models.QuerySet["Certificate"]):
    def good(self, now: datetime) -> CertificateQuerySet:
        """Those that open a connection, while they haven't expired. A replaced one serves out the calls that are under way."""
        replaced = Q(superseded_at__lte=now - SUPERSEDED_GRACE)
        return self.filter(revoked_at=None).exclude(replaced)


class Certificate(models.Model):
    """A certificate issued to a client. One that is renewed stays good until the new one is first used."""

    client = models.ForeignKey(Client, on_delete=models.CASCADE, related_name="certificates")
    serial = models.CharField(max_length=40, unique=True, help_text="Hexadecimal.")
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the public key, hexadecimal.")
    pem = models.TextField(blank=True)
    issued_at = models.DateTimeField(default=timezone.now)
    not_before = models.DateTimeField()
    not_after = models.DateTimeField()
    confirmed_at = models.DateTimeField(null=True, help_text="When the agent first used it.")
    superseded_at = models.DateTimeField(null=True, help_text="When the agent first used a newer one.")
    revoked_at = models.DateTimeField(null=True)

    objects = CertificateQuerySet.as_manager()

    class Meta:
        ordering = ["-issued_at", "-id"]

    def __str__(self) -> str:
        return f"Certificate {self.serial} of {self.client}"

    @property
    def spaced_fingerprint(self) -> str:
        return spaced(self.fingerprint)

    def confirm(self, now: datetime) -> None:
        """The agent has it and uses it: the others are replaced. Of two that are first used at once, one."""
        with transaction.atomic():
            Client.objects.select_for_update(no_key=True).get(pk=self.client_id)
            certificates = Certificate.objects.filter(client_id=self.client_id, superseded_at=None)
            if certificates.filter(pk=self.pk, confirmed_at=None).update(confirmed_at=now):
                certificates.exclude(pk=self.pk).update(superseded_at=now)


class EnrolmentTokenQuerySet(models.QuerySet["EnrolmentToken"]):
    def usable(self, now: datetime) -> EnrolmentTokenQuerySet:
        return self.filter(revoked_at=None, expires_at__gt=now, uses__lt=F("max_uses"))


class EnrolmentToken(models.Model):
    """The right to enrol a number of clients. Only a hash of its secret is stored."""

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="tokens")
    key_id = models.CharField(max_length=16, unique=True)
    secret_sha256 = models.CharField(max_length=64)
    note = models.CharField(max_length=120, blank=True)
    labels = models.JSONField(default=dict)
    requires_approval = models.BooleanField(default=False, help_text="An operator admits each client.")
    max_uses = models.PositiveIntegerField(default=1, validators=[MinValueValidator(1)])
    uses = models.PositiveIntegerField(default=0)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    objects = EnrolmentTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(uses__lte=F("max_uses")), name="token_not_overspent"),
        ]

    def __str__(self) -> str:
        return f"Token {self.key_id}"

    @property
    def state(self) -> str:
        """usable, revoked, spent or expired."""
        if self.revoked_at:
            return "revoked"
        if self.uses >= self.max_uses:
            return "spent"
        return "expired" if self.expires_at <= timezone.now() else "usable"


class AdmissionStatus(models.TextChoices):
    WAITING = "waiting", "Waiting"
    ADMITTED = "admitted", "Admitted"
    REFUSED = "refused", "Refused"


class AdmissionQuerySet(models.QuerySet["Admission"]):
    def waiting(self, now: datetime) -> AdmissionQuerySet:
        return self.filter(status=AdmissionStatus.WAITING, requested_at__gt=now - WAITING_LIFE)


class Admission(StatefulModel):
    """One machine's request to become a client, by a token, and what came of it."""

    TRANSITIONS = {
        AdmissionStatus.WAITING: frozenset({AdmissionStatus.ADMITTED, AdmissionStatus.REFUSED}),
        AdmissionStatus.ADMITTED: frozenset(),
        AdmissionStatus.REFUSED: frozenset(),
    }

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="admissions")
    token = models.ForeignKey(EnrolmentToken, on_delete=models.CASCADE, related_name="admissions")
    status = models.CharField(max_length=16, choices=AdmissionStatus, default=AdmissionStatus.WAITING)
    name = models.CharField(max_length=63, blank=True, help_text="Empty: one is made.")
    host = models.CharField(max_length=255, blank=True)
    agent_version = models.CharField(max_length=32, blank=True)
    platform = models.CharField(max_length=120, blank=True)
    address = models.GenericIPAddressField(null=True)
    csr_pem = models.TextField()
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the public key, hexadecimal.")
    returning = models.ForeignKey(
        Client, null=True, on_delete=models.CASCADE, related_name="+", help_text="The client that it says it is."
    )
    proven = models.BooleanField(default=False, help_text="It has shown that it holds the key of that client.")
    requested_at = models.DateTimeField(default=timezone.now)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    reason = models.CharField(max_length=500, blank=True, help_text="Why it was refused.")
    client = models.ForeignKey(Client, null=True, on_delete=models.CASCADE, related_name="admissions")
    certificate = models.OneToOneField(Certificate, null=True, on_delete=models.CASCADE, related_name="admission")

    objects = AdmissionQuerySet.as_manager()

    class Meta:
        ordering = ["-requested_at"]
        constraints = [
            # So that an agent whose answer was lost can ask again without spending another use.
            models.UniqueConstraint(fields=["token", "fingerprint"], name="admission_once_a_key_and_token"),
        ]

    def __str__(self) -> str:
        return f"Admission of {self.name or 'a client without a name'}"

    @property
    def labels(self) -> dict[str, str]:
        """What the client will have: a returning one keeps its own."""
        labels: dict[str, str] = self.returning.labels if self.returning else self.token.labels
        return labels

    @property
    def has_lapsed(self) -> bool:
        return self.status == AdmissionStatus.WAITING and self.requested_at <= timezone.now() - WAITING_LIFE

    @property
    def spaced_fingerprint(self) -> str:
        return spaced(self.fingerprint)
