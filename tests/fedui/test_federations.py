"""Federations, their members, and who sees them."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.errors import NameTaken
from fedui.federations.models import Act, Federation, Membership, Role
from fedui.federations.services import add_member, create_federation


def test_who_creates_a_federation_owns_it(owner: User) -> None:
    federation = create_federation("Hearts", "hearts", owner, address="192.0.2.1")

    assert federation.memberships.get().user == owner
    assert federation.memberships.get().role == Role.OWNER
    assert federation.audit_events.get().action == "federation.created"


def test_a_short_name_is_used_once(federation: Federation, stranger: User) -> None:
    with pytest.raises(NameTaken):
        create_federation("Other hearts", federation.slug, stranger)

    assert not federation.memberships.filter(user=stranger).exists()


def test_only_members_see_a_federation(federation: Federation, owner: User, stranger: User) -> None:
    assert list(Federation.objects.visible_to(owner)) == [federation]
    assert federation not in Federation.objects.visible_to(stranger)
    assert not Federation.objects.visible_to(AnonymousUser())


def test_who_is_deactivated_sees_nothing(federation: Federation, owner: User) -> None:
    owner.is_active = False

    assert not Federation.objects.visible_to(owner)


def test_a_member_can_be_given_another_role(federation: Federation, owner: User, stranger: User) -> None:
    add_member(federation, stranger, Role.AUDITOR, owner)
    membership = add_member(federation, stranger, Role.OPERATOR, owner)

    assert membership.role == Role.OPERATOR
    assert federation.memberships.filter(user=stranger).count() == 1
    entry = AuditEvent.objects.get(action="member.changed", federation=federation)
    assert (entry.before, entry.after) == ({"role": "auditor"}, {"role": "operator"})


@pytest.mark.parametrize(
    ("role", "acts"),
    [
        (Role.OWNER, set(Act)),
        (Role.OPERATOR, set(Act) - {Act.MANAGE_MEMBERS, Act.MANAGE_WEBHOOKS}),
        (
            Role.RESEARCHER,
            {Act.READ, Act.SEE_CLIENTS, Act.HAVE_KEYS, Act.MANAGE_STRATEGIES, Act.MANAGE_RUNS, Act.PROMOTE_MODELS},
        ),
        (Role.AUDITOR, {Act.READ, Act.SEE_CLIENTS, Act.HAVE_KEYS, Act.READ_AUDIT}),
        (Role.SITE_ADMIN, {Act.SEE_CLIENTS, Act.REVOKE_CLIENTS, Act.HAVE_KEYS}),
    ],
)
def test_what_each_role_may(role: Role, acts: set[Act]) -> None:
    assert {act for act in Act if Membership(role=role).may(act)} == acts
