"""Invitations: a link that makes its first user a member of a federation, with the role that it says."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.clients.models import Client
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Act, Federation, Invitation, Membership, Role
from fedui.federations.services import checked_clients

_IN_SESSION = "invitation"
SECRET_BYTES = 32


class InvitationRefused(DomainError):
    """The link is unknown, was used, has expired or was taken back; or there is nothing to join."""

    code = ErrorCode.INVITATION_REFUSED


@transaction.atomic
def invite(
    federation: Federation,
    actor: User,
    role: Role,
    *,
    clients: Iterable[Client] = (),
    email: str = "",
    lifetime: timedelta = timedelta(days=7),
    address: str | None = None,
) -> tuple[Invitation, str]:
    """An invitation and its link, which can't be had again. Sent to `email` where there is one. Raises `ClientsRefused`."""
    own = checked_clients(federation, role, clients)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    invitation = Invitation.objects.create(
        federation=federation,
        role=role,
        email=email,
        secret_sha256=_hash(secret),
        created_by=actor,
        expires_at=timezone.now() + lifetime,
    )
    invitation.clients.set(own)
    link = settings.PUBLIC_URL + reverse("invitation", args=[secret])
    until = invitation.expires_at.isoformat(timespec="seconds")
    names = [client.name for client in own]
    record(
        federation,
        actor,
        "invitation.created",
        invitation,
        address=address,
        role=role.value,
        clients=names,
        until=until,
    )
    if email:
        transaction.on_commit(lambda: _send(invitation, link), robust=True)
    return invitation, link


@transaction.atomic
def revoke(invitation: Invitation, actor: User, *, address: str | None = None) -> None:
    if Invitation.objects.open().filter(pk=invitation.pk).update(revoked_at=timezone.now()):
        record(invitation.federation, actor, "invitation.revoked", invitation, address=address)


def find(secret: str) -> Invitation:
    """The open invitation of a link. Raises `InvitationRefused`."""
    found = (
        Invitation.objects.open().select_related("federation", "created_by").filter(secret_sha256=_hash(secret)).first()
    )
    if found is None or not _may_invite(found):
        raise InvitationRefused(
            "This invitation is not valid: it was used, has expired or was taken back.", hint="Ask for a new one."
        )
    return found


def _may_invite(invitation: Invitation) -> bool:
    """Whether who made it still may: nobody comes back by a link that they made before they were removed."""
    makers = Membership.objects.that_may(Act.MANAGE_MEMBERS).filter(user__is_active=True)
    return makers.filter(federation=invitation.federation_id, user=invitation.created_by_id).exists()


@transaction.atomic
def accept(secret: str, user: User, *, address: str | None = None) -> Membership:
    """Make `user` a member. Of two that use a link at once, one does. Raises `InvitationRefused`."""
    invitation = find(secret)
    if invitation.federation.memberships.filter(user=user).exists():
        raise InvitationRefused(
            f"You are a member of {invitation.federation} already.", hint="An owner can change your role."
        )
    if not Invitation.objects.open().filter(pk=invitation.pk).update(accepted_at=timezone.now(), accepted_by=user):
        return accept(secret, user, address=address)  # which says that it is too late
    membership = Membership.objects.create(federation=invitation.federation, user=user, role=invitation.role)
    membership.clients.set(invitation.clients.all())
    record(
        invitation.federation, user, "invitation.accepted", user.get_username(),
        address=address, role=invitation.role, invited_by=invitation.created_by.get_username(),
    )  # fmt: skip
    return membership


def remember(request: HttpRequest, secret: str) -> None:
    """Keep the link for after the sign-in, whichever way it goes."""
    request.session[_IN_SESSION] = secret


def invited(request: HttpRequest) -> bool:
    """Whether the browser has followed a link that is still good."""
    try:
        return bool(find(request.session.get(_IN_SESSION, "")))
    except InvitationRefused:
        return False


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _send(invitation: Invitation, link: str) -> None:
    text = render_to_string("federations/invitation.txt", {"invitation": invitation, "link": link})
    send_mail(f"FedUI: invitation to {' '.join(invitation.federation.name.split())}", text, None, [invitation.email])
