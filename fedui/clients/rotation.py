"""Rotation of the certificate authority: each step only when no agent would be left behind, and in the audit log."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from fedui.audit.services import record
from fedui.clients import authorities
from fedui.clients.authorities import RotationRefused, Stage, Trust, trust
from fedui.clients.models import Certificate, Client, ClientStatus, EnrolmentToken
from fedui.federations.models import Federation

NAMED = 5


def begin(actor: str) -> Trust:
    """Have a new authority trusted. Agents learn of it when they renew their certificates, or enrol."""
    return _step(authorities.begin, actor, "authority.rotation_begun")


def switch(actor: str, *, force: bool = False) -> Trust:
    """Let the new authority issue. Raises `RotationRefused` while some agents can't know it, unless `force`."""
    if not force:
        _refuse_for(left_behind(Stage.BEGUN), "have not heard of the new authority, and would not trust this server")
    return _step(authorities.switch, actor, "authority.rotation_switched")


def finish(actor: str, *, force: bool = False) -> Trust:
    """Forget the former authority. Raises `RotationRefused` while some agents' certificates are from it, unless `force`."""
    if not force:
        _refuse_for(left_behind(Stage.SWITCHED), "have a certificate from the former authority, and would be cut off")
    return _step(authorities.finish, actor, "authority.rotation_finished")


def left_behind(stage: Stage) -> list[Client]:
    """Clients whose certificate in use, or their first, is from before the present step of a rotation. One that was issued since but
    never used may not have arrived; an agent whose certificate has ended has to enrol again anyway."""
    present = trust()
    if present.stage != stage or present.since is None:
        return []
    now = timezone.now()
    in_use = Certificate.objects.filter(revoked_at=None, superseded_at=None, not_after__gt=now)
    old = in_use.filter(client=OuterRef("pk"), issued_at__lt=present.since)
    return list(Client.objects.exclude(status=ClientStatus.REVOKED).filter(Exists(old)).order_by("name"))


def outdated_tokens() -> int:
    """Usable tokens that name an authority which `finish` forgets."""
    present = trust()
    usable = EnrolmentToken.objects.usable(timezone.now())
    return usable.filter(created_at__lt=present.since).count() if present.stage == Stage.SWITCHED else 0


def _refuse_for(clients: list[Client], why: str) -> None:
    if clients:
        names = ", ".join(client.name for client in clients[:NAMED]) + (" and others" if len(clients) > NAMED else "")
        raise RotationRefused(
            f"{len(clients)} clients {why}: {names}.",
            hint="Wait until they have renewed, revoke them, or use --force: then these must enrol again.",
        )


@transaction.atomic
def _step(step: Callable[[], Trust], actor: str, action: str) -> Trust:
    """The database first: while it is away, no step is made that the audit log would miss."""
    federations = [None, *Federation.objects.all()]
    done = step()
    for federation in federations:
        record(federation, actor, action, "certificate authority", issuer=done.issuer.fingerprint)
    return done
