"""What changes federations and their members."""

from __future__ import annotations

from django.db import transaction

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.errors import NameTaken
from fedui.federations.models import Federation, Membership, Role


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
    record(federation, owner, "federation.created", federation, address=address)
    return federation


@transaction.atomic
def add_member(
    federation: Federation, user: User, role: Role, actor: User, *, address: str | None = None
) -> Membership:
    """Make `user` a member with `role`, or give a member another role."""
    membership, _ = Membership.objects.update_or_create(federation=federation, user=user, defaults={"role": role})
    record(federation, actor, "member.added", user.get_username(), address=address, role=role.value)
    return membership
