"""API keys: made once, kept as a hash, acting as a member within scopes, and never beyond."""

from __future__ import annotations

import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client as Browser
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.federations.models import Act, Federation, Role
from fedui.federations.services import remove_member
from fedui.keys.models import ApiKey
from fedui.keys.scopes import SCOPE_OF, Scope
from fedui.keys.services import MAX_KEYS, KeyRefused, create_key
from fedui.keys.text import PATTERN, KeyText
from tests.support.api import Caller, as_user, with_key
from tests.support.domain import a_federation, a_member

KEYS = "federations/hearts/keys"


@pytest.fixture
def made(federation: Federation, owner: User) -> dict[str, Any]:
    answer = as_user(owner).post(KEYS, {"name": "CI", "scopes": ["read", "keys"], "days": 30})
    assert answer.status_code == 201, answer.content
    body: dict[str, Any] = answer.json()
    return body


def test_every_act_has_a_scope() -> None:
    assert set(SCOPE_OF) == set(Act)
    assert set(SCOPE_OF.values()) == set(Scope)


def test_a_key_is_shown_once_and_stored_as_a_hash(made: dict[str, Any], owner: User) -> None:
    assert re.fullmatch(PATTERN, made["key"])
    stored = str(list(ApiKey.objects.values()))
    assert KeyText.parse(made["key"]).secret not in stored  # type: ignore[union-attr]
    for answer in (as_user(owner).get(KEYS), as_user(owner).get(f"{KEYS}/{made['id']}")):
        assert made["key"] not in answer.content.decode()
    entry = AuditEvent.objects.get(action="key.created")
    assert (entry.actor, entry.details["scopes"]) == (owner, ["keys", "read"])
    assert made["key"] not in str(entry.exported())


def test_a_mistyped_key_is_known_as_such_without_the_server() -> None:
    text = str(KeyText.new())
    assert KeyText.parse(text)
    assert KeyText.parse(text[:-1] + ("A" if text[-1] != "A" else "B")) is None
    assert KeyText.parse(text[:20]) is None


def test_a_key_acts_as_its_member_and_the_log_tells_which(made: dict[str, Any], owner: User) -> None:
    caller = with_key(made["key"])
    me = caller.get("me").json()
    assert (me["username"], me["api_key"], me["scopes"]) == ("owner", made["prefix"], ["keys", "read"])
    assert caller.get("federations/hearts/runs").status_code == 200
    assert as_user(owner).get(f"{KEYS}/{made['id']}").json()["last_used_at"]
    caller.post(f"{KEYS}/{made['id']}/revoke")
    assert AuditEvent.objects.get(action="key.revoked").details["api_key"] == made["prefix"]


def test_a_key_does_no_more_than_its_scopes(made: dict[str, Any]) -> None:
    refused = with_key(made["key"]).post("federations/hearts/tokens", {"note": "n"})
    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")
    assert "scope tokens" in refused.json()["hint"]


@pytest.mark.parametrize(
    "act", ["federations", "federations/hearts/keys"], ids=["a federation", "a key that may more than it"]
)
def test_a_key_does_not_outgrow_itself(made: dict[str, Any], act: str) -> None:
    body = {"federations": {"name": "New"}}.get(act, {"name": "more", "scopes": ["read", "audit"]})
    assert with_key(made["key"]).post(act, body).status_code in (403, 422)
    assert ApiKey.objects.count() == 1


def test_a_key_makes_keys_that_end_no_later(made: dict[str, Any]) -> None:
    child = with_key(made["key"]).post(KEYS, {"name": "child", "scopes": ["read"], "days": 300}).json()
    assert child["expires_at"] == made["expires_at"]


def test_a_key_opens_one_federation_of_its_member(made: dict[str, Any], owner: User) -> None:
    a_federation("other", owner)
    caller = with_key(made["key"])
    assert caller.get("federations/other/runs").status_code == 404
    assert [one["slug"] for one in caller.get("federations").json()["results"]] == ["hearts"]


def test_a_key_ends_with_what_it_rests_on(made: dict[str, Any], federation: Federation, owner: User) -> None:
    researcher = a_member(federation, Role.RESEARCHER)
    _, text = create_key(
        federation.memberships.get(user=researcher), name="k", scopes=[Scope.RUNS, Scope.READ], lifetime=timedelta(1)
    )
    caller = with_key(text)
    assert caller.get("federations/hearts/runs").status_code == 200
    remove_member(federation.memberships.get(user=researcher), owner)
    assert caller.get("federations/hearts/runs").status_code == 404

    User.objects.filter(pk=owner.pk).update(is_active=False)
    assert with_key(made["key"]).get("me").status_code == 401


@pytest.mark.parametrize("change", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now()}])
def test_a_key_that_is_over_opens_nothing(made: dict[str, Any], change: dict[str, Any]) -> None:
    ApiKey.objects.update(**change)
    refused = with_key(made["key"]).get("me")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused["WWW-Authenticate"].startswith("Bearer")


def test_wrong_keys_are_slowed_down_and_noted_once(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedui.api.throttles.time", SimpleNamespace(time=lambda: 1_000_000_000.0))
    wrong = with_key(str(KeyText.new()))
    statuses = [wrong.get("me").status_code for _ in range(33)]
    assert (statuses[0], statuses[-1]) == (401, 429)
    assert AuditEvent.objects.filter(action="key.throttled").count() == 1
    assert with_key(made["key"]).get("me").status_code == 200


def test_members_see_their_own_keys_and_who_manages_members_all(
    made: dict[str, Any], federation: Federation, owner: User
) -> None:
    auditor = a_member(federation, Role.AUDITOR)
    own = as_user(auditor).post(KEYS, {"name": "mine", "scopes": ["audit"]}).json()

    assert [key["id"] for key in as_user(auditor).get(KEYS).json()["results"]] == [own["id"]]
    assert as_user(auditor).post(f"{KEYS}/{made['id']}/revoke").status_code == 404
    assert len(as_user(owner).get(KEYS).json()["results"]) == 2
    assert as_user(owner).post(f"{KEYS}/{own['id']}/revoke").json()["state"] == "revoked"


def test_a_role_has_no_scopes_that_are_of_no_use_to_it(federation: Federation) -> None:
    auditor = a_member(federation, Role.AUDITOR)
    refused = as_user(auditor).post(KEYS, {"name": "more", "scopes": ["tokens"]})
    assert (refused.status_code, refused.json()["code"]) == (422, "api_key_refused")


def test_a_member_has_so_many_keys(federation: Federation, owner: User) -> None:
    member = federation.memberships.get(user=owner)
    key = {"secret_sha256": "", "scopes": ["read"], "expires_at": timezone.now() + timedelta(1)}
    ApiKey.objects.bulk_create(
        ApiKey(federation=federation, user=owner, name="k", key_id=f"k{n}", **key) for n in range(MAX_KEYS)
    )
    with pytest.raises(KeyRefused, match="50 keys"):
        create_key(member, name="one more", scopes=[Scope.READ], lifetime=timedelta(1))


def test_a_browser_needs_its_csrf_token(federation: Federation, owner: User) -> None:
    browser = Browser(enforce_csrf_checks=True)
    browser.force_login(owner)
    body = {"name": "CI", "scopes": ["read"]}
    assert browser.post(f"/api/v1/{KEYS}", body, content_type="application/json").status_code == 403
    browser.get("/f/hearts/settings/")
    token = browser.cookies["csrftoken"].value
    good = browser.post(f"/api/v1/{KEYS}", body, content_type="application/json", headers={"x-csrftoken": token})
    assert good.status_code == 201


def test_callers_are_told_how_much_they_may_ask_and_told_to_wait(
    made: dict[str, Any], settings: Any, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedui.api.throttles.time", SimpleNamespace(time=lambda: 1_000_000_000.0))
    settings.API_CALLS_PER_MINUTE = 3
    answers = [caller.get("me") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[0]["RateLimit-Policy"] == '"minute";q=3;w=60'
    assert re.fullmatch(r'"minute";r=2;t=\d+', answers[0]["RateLimit"])
    assert int(answers[3]["Retry-After"]) <= 60
    assert answers[3].json()["code"] == "throttled"
    assert with_key(made["key"]).get("me").status_code == 200  # another caller's account


@pytest.fixture
def caller(owner: User) -> Caller:
    return as_user(owner)
