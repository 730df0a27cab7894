"""What changes federations and their members."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from fedui.accounts.models import User
from fedui.alerts.services import add_default_rules
from fedui.audit.services import record
from fedui.clients.models import Client
from fedui.errors import DomainError, ErrorCode, NameTaken
from fedui.federations.models import Federation, Membership, Role, SecondFactor
from fedui.runs import live


class LastOwner(DomainError):
    """Without an owner nobody could ever change who is a member."""

    code = ErrorCode.LAST_OWNER

    def __init__(self, federation: Federation) -> None:
        super().__init__(f"This is the last owner of {federation}.", hint="Make somebody else an owner first.")


class AppointmentRefused(DomainError):
    """An owner is appointed from outside only where a federation has none, and only somebody who can act."""

    code = ErrorCode.ILLEGAL_TRANSITION


class ClientsRefused(DomainError):
    """A site admin has some clients of the federation, whoever else has none of their own."""

    code = ErrorCode.INVALID_REQUEST


@transaction.atomic
def create_federation(
    name: str, slug: str, owner: User, *, description: str = "", address: str | None = None
) -> Federation:
    """A new federation, with `owner` as its first member. Raises `NameTaken`."""
    federation, created = Federation.objects.get_or_create(
        slug=slug, defaults={"name": name, "description": description}
    )
    if not created:
        raise NameTaken(f"There is a federation with the short name {slug} already.", hint="Choose another one.")
    Membership.objects.create(federation=federation, user=owner, role=Role.OWNER)
    add_default_rules(federation)
    record(federation, owner, "federation.created", federation, address=address)
    return federation


@transaction.atomic
def change_federation(
    federation: Federation, actor: User, *, name: str, second_factor: SecondFactor, address: str | None = None
) -> None:
    """Rename it, and say whose sign-in takes a second factor."""
    before = {"name": federation.name, "second_factor": federation.second_factor}
    after = {"name": name, "second_factor": second_factor.value}
    if before != after:
        Federation.objects.filter(pk=federation.pk).update(**after)
        federation.refresh_from_db()
        record(federation, actor, "federation.changed", federation, address=address, before=before, after=after)


@transaction.atomic
def add_member(
    federation: Federation,
    user: User,
    role: Role,
    actor: User,
    *,
    clients: Iterable[Client] = (),
    address: str | None = None,
) -> Membership:
    """Make `user` a member with `role`, or give a member another role. Raises `LastOwner` or `ClientsRefused`."""
    own = checked_clients(federation, role, clients)
    lock_members(federation)
    membership = Membership.objects.filter(federation=federation, user=user).first()
    before = _described(membership) if membership else None
    if membership is None:
        membership = Membership.objects.create(federation=federation, user=user, role=role)
    else:
        if role != Role.OWNER:
            _keep_an_owner(membership)
        membership.role = role
        membership.save(update_fields=["role"])
    membership.clients.set(own)
    action = "member.changed" if before else "member.added"
    after = _described(membership)
    record(federation, actor, action, user.get_username(), address=address, before=before, after=after)
    transaction.on_commit(lambda: live.access_changed(user.pk), robust=True)
    return membership


@transaction.atomic
def remove_member(membership: Membership, actor: User, *, address: str | None = None) -> None:
    """What they made stays; what they have open is closed. Raises `LastOwner`."""
    federation, user = membership.federation, membership.user
    lock_members(federation)
    _keep_an_owner(membership)
    before = _described(membership)
    membership.delete()
    record(federation, actor, "member.removed", user.get_username(), address=address, before=before)
    transaction.on_commit(lambda: live.access_changed(user.pk), robust=True)


@transaction.atomic
def appoint_owner(federation: Federation, user: User, actor: User, *, address: str | None = None) -> Membership:
    """By an installation administrator, for a federation whose owners are all deactivated. Raises `AppointmentRefused`."""
    lock_members(federation)
    if _owners(federation).exists():
        raise AppointmentRefused(
            f"{federation} has an owner.", hint="Owners appoint others themselves, under Settings, Members."
        )
    if not user.is_active:
        raise AppointmentRefused(f"The account {user} is deactivated.", hint="Activate it first, or choose another.")
    membership = Membership.objects.filter(federation=federation, user=user).first()
    before = _described(membership) if membership else None
    membership, _ = Membership.objects.update_or_create(federation=federation, user=user, defaults={"role": Role.OWNER})
    membership.clients.clear()
    after, subject = _described(membership), user.get_username()
    record(federation, actor, "federation.owner_appointed", subject, address=address, before=before, after=after)
    transaction.on_commit(lambda: live.access_changed(user.pk), robust=True)
    return membership


def checked_clients(federation: Federation, role: Role, clients: Iterable[Client]) -> list[Client]:
    """The clients that a member with `role` is to have. Raises `ClientsRefused`."""
    own = list(clients) if role == Role.SITE_ADMIN else []
    if role == Role.SITE_ADMIN and not own:
        raise ClientsRefused("A site admin sees only their own clients.", hint="Choose at least one.")
    if any(client.federation_id != federation.pk for client in own):
        raise ClientsRefused("This client belongs to another federation.", hint=f"Choose clients of {federation}.")
    return own


def lock_members(federation: Federation) -> None:
    """Changes of a federation's members wait for each other: two owners can't remove one another at once. Before the row of a member."""
    Federation.objects.select_for_update(no_key=True).get(pk=federation.pk)


def _keep_an_owner(membership: Membership) -> None:
    membership.refresh_from_db(fields=["role"])
    if membership.role == Role.OWNER and not _owners(membership.federation).exclude(pk=membership.pk).exists():
        raise LastOwner(membership.federation)


def _owners(federation: Federation) -> QuerySet[Membership]:
    """Those who can act: an owner whose account is deactivated is none."""
    return Membership.objects.filter(federation=federation, role=Role.OWNER, user__is_active=True)


def _described(membership: Membership) -> dict[str, Any]:
    own = sorted(membership.clients.values_list("name", flat=True))
    return {"role": membership.role} | ({"clients": own} if own else {})
