"""A federation whose owners are all deactivated: administrators see it, and appoint another; and how owners race for being the last."""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from django.db import close_old_connections, connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from fedui.accounts import administration
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.errors import DomainError
from fedui.federations.models import Federation, Membership, Role
from fedui.federations.services import AppointmentRefused, LastOwner, add_member, appoint_owner, remove_member
from tests.support.api import as_user
from tests.support.domain import a_federation, a_member, a_user


@pytest.fixture
def root(db: None) -> User:
    return User.objects.create_superuser("root", password="secret")


@pytest.fixture
def browser(root: User) -> Browser:
    browser = Browser()
    browser.force_login(root)
    return browser


def deactivated(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def owned(root: User) -> dict[str, bool]:
    rows = as_user(root).get("installation/federations").json()["results"]
    return {row["slug"]: row["owned"] for row in rows}


def test_an_owner_who_is_deactivated_is_none(federation: Federation, owner: User) -> None:
    second = add_member(federation, a_user("second"), Role.OWNER, owner)
    deactivated(second.user)
    first = federation.memberships.get(user=owner)
    with pytest.raises(LastOwner):
        remove_member(first, owner)
    with pytest.raises(LastOwner):
        add_member(federation, owner, Role.AUDITOR, owner)
    remove_member(second, owner)  # and who is none may go


def test_administrators_see_who_has_nobody_and_appoint_an_owner(
    federation: Federation, owner: User, root: User, browser: Browser
) -> None:
    a_federation("lungs", a_user("other"))
    operator = a_member(federation, Role.OPERATOR)
    assert owned(root) == {"hearts": True, "lungs": True}
    done = browser.post(f"/installation/accounts/{owner.pk}/deactivate/", follow=True)
    assert "Nobody can act for Hearts any more" in done.content.decode()
    assert owned(root) == {"hearts": False, "lungs": True}
    [row] = as_user(root).get("installation/federations?owned=false").json()["results"]
    assert (row["slug"], row["members"]) == ("hearts", 2)

    shown = browser.get("/installation/federations/").content.decode()
    assert "nobody who can act" in shown and operator.username in shown and "appoint-" in shown
    unknown = browser.post("/installation/federations/hearts/owner/", {"username": "nobody-at-all"}, follow=True)
    assert "There is no account named nobody-at-all" in unknown.content.decode()
    browser.post("/installation/federations/hearts/owner/", {"username": operator.username})

    assert federation.memberships.get(user=operator).role == Role.OWNER
    entry = AuditEvent.objects.get(action="federation.owner_appointed")
    assert (entry.federation, entry.actor, entry.subject) == (federation, root, operator.username)
    assert (entry.before, entry.after) == ({"role": "operator"}, {"role": "owner"})
    assert "appoint-" not in browser.get("/installation/federations/").content.decode()
    assert as_user(operator).get("federations/hearts/invitations").status_code == 200


def test_an_owner_is_appointed_over_rest(federation: Federation, owner: User, root: User, stranger: User) -> None:
    path, caller = "installation/federations/hearts/owner", as_user(root)
    there = caller.post(path, {"username": stranger.username})
    assert (there.status_code, there.json()["code"]) == (409, "illegal_transition")
    assert "has an owner" in there.json()["detail"]

    deactivated(owner)
    assert caller.post(path, {"username": "nobody"}).status_code == 400
    asleep = caller.post(path, {"username": owner.username})
    assert (asleep.status_code, "deactivated" in asleep.json()["detail"]) == (409, True)
    key = "0123456789abcdef"
    first, again = (caller.post(path, {"username": stranger.username}, idempotency_key=key) for _ in range(2))
    assert (first.status_code, first.json()["role"]) == (200, "owner")
    assert again.content == first.content
    assert AuditEvent.objects.filter(action="federation.owner_appointed").count() == 1
    assert as_user(stranger).get("federations/hearts/members").status_code == 200


def test_the_lists_of_federations_cost_the_same_however_long(root: User, browser: Browser, owner: User) -> None:
    def cost(call: Callable[[], object]) -> int:
        with CaptureQueriesContext(connection) as made:
            call()
        return len(made)

    calls = [
        lambda: as_user(root).get("installation/federations?limit=200"),
        lambda: browser.get("/installation/federations/"),
    ]
    costs = []
    for count in (10, 40):
        made = Federation.objects.bulk_create(
            Federation(name=f"F {count}-{number}", slug=f"f-{count}-{number}") for number in range(count)
        )
        Membership.objects.bulk_create(Membership(federation=one, user=owner, role=Role.AUDITOR) for one in made)
        costs.append([cost(call) for call in calls])
    assert costs[0] == costs[1]


# --- races -----------------------------------------------------------------------------------------------------------


def at_once(*acts: Callable[[], object]) -> list[BaseException | None]:
    """How each ended."""
    start = Barrier(len(acts))
    ends: list[BaseException | None] = [None] * len(acts)

    def do(number: int, act: Callable[[], object]) -> None:
        close_old_connections()
        start.wait(20)
        try:
            act()
        except DomainError as error:
            ends[number] = error
        finally:
            connection.close()

    threads = [Thread(target=do, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", ["remove", "change"])
def test_two_owners_can_not_put_each_other_out_at_once(act: str) -> None:
    first, second = a_user("first"), a_user("second")
    federation = a_federation("hearts", first)
    add_member(federation, second, Role.OWNER, first)

    def put_out(member: User, actor: User) -> Callable[[], object]:
        membership = Membership.objects.select_related("federation", "user").get(user=member)
        if act == "remove":
            return lambda: remove_member(membership, actor)
        return lambda: add_member(federation, member, Role.AUDITOR, actor)

    ends = at_once(put_out(first, second), put_out(second, first))
    assert sorted(type(end).__name__ for end in ends) == ["LastOwner", "NoneType"]
    assert federation.memberships.filter(role=Role.OWNER).count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_owner_who_is_removed_while_the_other_is_deactivated() -> None:
    """Whichever is first: the removal sees it, or the administrator does."""
    root = User.objects.create_superuser("root", password="secret")
    first, second = a_user("first"), a_user("second")
    federation = a_federation("hearts", first)
    leaving = add_member(federation, second, Role.OWNER, first)
    removed, _ = at_once(lambda: remove_member(leaving, first), lambda: administration.deactivate(first, root))

    if removed is None:
        assert owned(root) == {"hearts": False}
        appoint_owner(federation, second, root)
    assert owned(root) == {"hearts": True}


@pytest.mark.django_db(transaction=True)
def test_of_two_administrators_one_appoints() -> None:
    first, second = (User.objects.create_superuser(name, password="secret") for name in ("root", "toor"))
    owner, one, other = a_user("owner"), a_user("one"), a_user("other")
    federation = a_federation("hearts", owner)
    deactivated(owner)
    ends = at_once(lambda: appoint_owner(federation, one, first), lambda: appoint_owner(federation, other, second))
    assert sorted(type(end).__name__ for end in ends) == [AppointmentRefused.__name__, "NoneType"]
    assert federation.memberships.filter(role=Role.OWNER, user__is_active=True).count() == 1
