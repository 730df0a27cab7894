"""Members: roles, the last owner, invitations, and how little a site admin sees."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.test import Client as Browser
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client
from fedui.federations.invitations import InvitationRefused, accept, invite, revoke
from fedui.federations.models import Act, Federation, Invitation, Role
from fedui.federations.services import ClientsRefused, LastOwner, add_member, remove_member
from tests.support.domain import a_client, a_member, a_run, a_user, with_rounds

PASSWORD = "a long enough password"


def secret_of(link: str) -> str:
    return urlsplit(link).path.split("/")[2]


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def test_the_last_owner_stays(federation: Federation, owner: User) -> None:
    membership = federation.memberships.get()
    with pytest.raises(LastOwner):
        remove_member(membership, owner)
    with pytest.raises(LastOwner):
        add_member(federation, owner, Role.OPERATOR, owner)

    add_member(federation, a_user("second"), Role.OWNER, owner)
    remove_member(membership, owner)
    entry = AuditEvent.objects.get(action="member.removed")
    assert entry.before == {"role": "owner"}


def test_an_invitation_is_good_once(federation: Federation, owner: User) -> None:
    _, link = invite(federation, owner, Role.RESEARCHER)
    browser = Browser()
    path = urlsplit(link).path
    assert "researcher" in browser.get(path).content.decode()
    form = {"username": "ada", "email": "", "password1": PASSWORD, "password2": PASSWORD}
    answer = browser.post(path, form)

    assert answer["Location"] == "/f/hearts/"
    assert federation.memberships.get(user__username="ada").role == Role.RESEARCHER
    assert Browser().get(path).status_code == 404
    with pytest.raises(InvitationRefused):
        accept(secret_of(link), a_user("eve"))


def test_an_existing_account_accepts(federation: Federation, owner: User, stranger: User) -> None:
    _, link = invite(federation, owner, Role.AUDITOR)
    signed_in(stranger).post(urlsplit(link).path)

    assert federation.memberships.get(user=stranger).role == Role.AUDITOR
    entry = AuditEvent.objects.get(action="invitation.accepted")
    assert (entry.actor, entry.details["invited_by"]) == (stranger, "owner")


def test_a_member_is_not_changed_by_an_invitation(federation: Federation, owner: User) -> None:
    _, link = invite(federation, owner, Role.AUDITOR)
    with pytest.raises(InvitationRefused):
        accept(secret_of(link), owner)

    assert federation.memberships.get(user=owner).role == Role.OWNER


@pytest.mark.parametrize(
    "end", ["revoked", "expired", "inviter deactivated", "inviter removed", "inviter of another role"]
)
def test_an_invitation_ends(federation: Federation, owner: User, stranger: User, end: str) -> None:
    invitation, link = invite(federation, owner, Role.OWNER)
    if end == "revoked":
        revoke(invitation, owner)
    elif end == "expired":
        Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    elif end == "inviter removed":
        remove_member(
            federation.memberships.get(user=owner), add_member(federation, a_user("next"), Role.OWNER, owner).user
        )
    elif end == "inviter of another role":
        add_member(federation, owner, Role.OPERATOR, add_member(federation, a_user("next"), Role.OWNER, owner).user)
    else:
        User.objects.filter(pk=owner.pk).update(is_active=False)

    with pytest.raises(InvitationRefused):
        accept(secret_of(link), stranger)


def test_only_a_hash_of_the_link_is_kept_and_it_is_sent(
    federation: Federation, owner: User, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        _, link = invite(federation, owner, Role.AUDITOR, email="ada@example.org")

    assert link in str(mail.outbox[0].body) and mail.outbox[0].to == ["ada@example.org"]
    kept = [
        *Invitation.objects.values_list("secret_sha256", "email").get(),
        *AuditEvent.objects.values_list("details", "subject"),
    ]
    assert secret_of(link) not in str(kept)


@pytest.mark.parametrize("role", [role for role in Role if role != Role.OWNER])
def test_only_owners_manage_members(federation: Federation, owner: User, role: Role) -> None:
    clients = [a_client(federation, "hosp-1")] if role == Role.SITE_ADMIN else []
    user = a_user("somebody")
    own = add_member(federation, user, role, owner, clients=clients)
    browser, target = signed_in(user), federation.memberships.get(user=owner)
    posts = [
        "general/",
        "invitations/new/",
        f"members/{target.pk}/",
        f"members/{own.pk}/",
        f"members/{target.pk}/remove/",
    ]

    assert [browser.post(f"/f/hearts/settings/{path}", {"role": "owner"}).status_code for path in posts] == [403] * 5
    own.refresh_from_db()
    assert own.role == role


def test_a_site_admin_has_clients_of_the_federation(federation: Federation, owner: User, stranger: User) -> None:
    foreign = a_client(stranger.memberships.get().federation, "hosp-9")
    for clients in ([], [foreign]):
        with pytest.raises(ClientsRefused):
            add_member(federation, a_user(f"admin-{len(clients)}"), Role.SITE_ADMIN, owner, clients=clients)


@pytest.fixture
def site(federation: Federation, owner: User) -> tuple[Browser, Client, Client, int]:
    """A site admin's browser, their client, another's, and a run in which both took part."""
    own, other = a_client(federation, "hosp-own"), a_client(federation, "hosp-other")
    run = a_run(federation, owner)
    with_rounds(run, [own, other], 2)
    user = a_user("site")
    add_member(federation, user, Role.SITE_ADMIN, owner, clients=[own])
    return signed_in(user), own, other, run.pk


def test_a_site_admin_sees_their_clients_and_nothing_of_others(site: tuple[Browser, Client, Client, int]) -> None:
    browser, own, other, _ = site
    shown = [browser.get(path) for path in ("/f/hearts/clients/", f"/f/hearts/clients/{own.pk}/", "/account/")]

    assert [answer.status_code for answer in shown] == [200, 200, 200]
    text = "".join(answer.content.decode() for answer in shown)
    assert "hosp-own" in text and "hosp-other" not in text and str(other.pk) not in text
    assert browser.get("/f/hearts/")["Location"] == "/f/hearts/clients/"
    assert browser.get(f"/f/hearts/clients/{other.pk}/").status_code == 404
    assert browser.post(f"/f/hearts/clients/{other.pk}/revoke/", {"confirm": other.name}).status_code == 404
    assert browser.get(f"/api/v1/federations/hearts/clients/{own.pk}/updates").status_code == 200
    assert browser.get(f"/api/v1/federations/hearts/clients/{other.pk}/updates").status_code == 404


def test_all_else_is_closed_to_a_site_admin(site: tuple[Browser, Client, Client, int]) -> None:
    browser, own, _, run = site
    pages = [
        "runs/", f"runs/{run}/", "runs/new/", "strategies/", "strategies/new/", "strategies/plain/", "apps/", "models/", "queries/",
        "queries/new/", "tokens/", "audit/", "settings/", "clients/waiting/",
    ]  # fmt: skip
    api = [
        f"runs/{run}", f"runs/{run}/events", f"runs/{run}/rounds/1/similarity", f"runs/{run}/models/1", "queries/1",
    ]  # fmt: skip
    lists = ["strategies", "admissions", "queries", "runs", "members", "apps", "tokens", "audit", "invitations"]

    assert {path: browser.get(f"/f/hearts/{path}").status_code for path in pages} == dict.fromkeys(pages, 403)
    assert {path: browser.get(f"/api/v1/{path}").status_code for path in api} == dict.fromkeys(api, 404)
    told = {name: browser.get(f"/api/v1/federations/hearts/{name}").status_code for name in lists}
    assert told == dict.fromkeys(lists, 403)
    assert browser.post(f"/f/hearts/clients/{own.pk}/suspend/").status_code == 403


def test_a_site_admin_takes_their_client_out(site: tuple[Browser, Client, Client, int]) -> None:
    browser, own, _, _ = site
    browser.post(f"/f/hearts/clients/{own.pk}/revoke/", {"confirm": own.name})

    own.refresh_from_db()
    assert own.status == "revoked"
    entry = AuditEvent.objects.get(action="client.revoked")
    assert (entry.actor_name, entry.before, entry.after) == ("site", {"status": "active"}, {"status": "revoked"})


def test_another_role_has_no_own_clients(federation: Federation, owner: User) -> None:
    user = a_user("site")
    add_member(federation, user, Role.SITE_ADMIN, owner, clients=[a_client(federation, "hosp-1")])
    membership = add_member(federation, user, Role.AUDITOR, owner)

    assert not membership.clients.exists()
    assert membership.may(Act.READ)


def test_what_changes_an_account_is_told(federation: Federation) -> None:
    root = User.objects.create_superuser("root", password="secret")
    user = a_member(federation, Role.AUDITOR)
    browser = signed_in(root)
    for act in ("deactivate", "activate", "promote", "demote", "unlock", "reset-factor"):
        browser.post(f"/installation/accounts/{user.pk}/{act}/")

    found = (
        AuditEvent.objects.filter(actor=root, subject=user.username).exclude(action="account.signed_in").order_by("id")
    )
    assert [entry.action for entry in found] == ["account.changed"] * 4 + ["account.unlocked"]
    first = found.first()
    assert first and (first.before, first.after) == ({"is_active": True}, {"is_active": False})


def test_the_last_installation_administrator_stays(db: None) -> None:
    root = User.objects.create_superuser("root", password="secret")
    browser = signed_in(root)
    for act in ("deactivate", "demote"):
        browser.post(f"/installation/accounts/{root.pk}/{act}/")

    root.refresh_from_db()
    assert root.is_active and root.is_superuser


def test_the_installation_is_closed_to_others(federation: Federation, owner: User) -> None:
    browser = signed_in(owner)
    paths = ["", "audit/", "audit/1/"]

    assert [browser.get(f"/installation/{path}").status_code for path in paths] == [404] * 3
    assert browser.post(f"/installation/accounts/{owner.pk}/promote/").status_code == 404
