"""Ways in: password with lock-out, second factor, single sign-on at a real provider, reset by e-mail; and ways out of sessions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from allauth.mfa.utils import decrypt
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.core import mail
from django.core.cache import cache
from django.test import Client as Browser
from pytest_django import Settings

from fedui import environment
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.federations.invitations import invite
from fedui.federations.models import Federation, Role
from tests.support.domain import a_federation, a_user
from tests.support.oidc import CLIENT_ID, CLIENT_SECRET, OidcProvider

Answer = Any


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    cache.clear()


@pytest.fixture
def ada(db: None) -> User:
    user = a_user("ada")
    user.email = "ada@example.org"
    user.save()
    return user


@pytest.fixture
def provider(settings: Settings) -> Iterator[OidcProvider]:
    with OidcProvider() as provider:
        settings.OIDC = environment.single_sign_on(
            issuer=provider.issuer, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, name="Hospital sign-on"
        )
        settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": [settings.OIDC]}}
        yield provider


def sign_in(browser: Browser, password: str = "secret", address: str = "192.0.2.1", name: str = "ada") -> Answer:
    return browser.post("/login/", {"login": name, "password": password}, REMOTE_ADDR=address)


def is_signed_in(browser: Browser) -> bool:
    return browser.get("/account/").status_code == 200


def actions(*names: str) -> list[str]:
    return [
        entry.action for entry in AuditEvent.objects.order_by("id") if entry.action.removeprefix("account.") in names
    ]


def by_provider(browser: Browser, process: str = "login") -> Answer:
    """Through the provider and back, as a browser goes."""
    there = browser.post(f"/accounts/oidc/sso/login/?process={process}")
    assert there.status_code == 302, there.content
    address = urlsplit(there["Location"])
    connection = HTTPConnection(address.netloc)
    connection.request("GET", f"{address.path}?{address.query}")
    back = urlsplit(connection.getresponse().headers["Location"])
    connection.close()
    return browser.get(f"{back.path}?{back.query}")


def code_of(user: User) -> str:
    """The number that the app on the phone shows."""
    authenticator = Authenticator.objects.get(user=user, type=Authenticator.Type.TOTP)
    return code_for(decrypt(authenticator.data["secret"]))


def code_for(secret: str) -> str:
    cache.clear()  # a code counts once, and the next one is half a minute away
    return str(format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time())))))


def set_up_second_factor(browser: Browser) -> str:
    page = browser.get("/accounts/2fa/totp/activate/").content.decode()
    secret = re.search(r'value="([A-Z2-7]{16,})"', page)
    assert secret
    answer = browser.post("/accounts/2fa/totp/activate/", {"code": code_for(secret[1])})
    assert answer.status_code == 302, answer.content
    return secret[1]


def test_a_password_lets_in_and_is_recorded(ada: User) -> None:
    browser = Browser()
    sign_in(browser)

    assert is_signed_in(browser)
    entry = AuditEvent.objects.get(action="account.signed_in")
    assert (entry.actor, entry.address, entry.via, entry.details["methods"]) == (ada, "192.0.2.1", "web", ["password"])


def test_wrong_passwords_lock_an_account_for_the_address_they_came_from_alone(ada: User) -> None:
    intruder, owner = Browser(), Browser()
    answers = [sign_in(intruder, f"guess {n}", "198.51.100.7").status_code for n in range(5)]
    assert answers == [200, 200, 200, 200, 429]
    assert sign_in(intruder, address="198.51.100.7").status_code == 429
    assert not is_signed_in(intruder)

    sign_in(owner)
    assert is_signed_in(owner)
    assert actions("locked_out", "sign_in_refused") == ["account.sign_in_refused", "account.locked_out"]


def test_what_was_typed_for_an_unknown_name_is_not_kept(ada: User) -> None:
    sign_in(Browser(), name="my secret password")

    assert AuditEvent.objects.get(action="account.sign_in_refused").subject == "unknown account"


def test_a_second_factor_is_asked_for_and_recovery_codes_replace_it(ada: User) -> None:
    browser = Browser()
    sign_in(browser)
    set_up_second_factor(browser)
    stored = Authenticator.objects.get(user=ada, type=Authenticator.Type.TOTP)
    assert stored.data["secret"].startswith("gAAAA")  # encrypted

    other = Browser()
    assert sign_in(other)["Location"].startswith("/accounts/2fa/authenticate/")
    assert not is_signed_in(other)
    assert other.post("/accounts/2fa/authenticate/", {"code": "000000"}).status_code == 200
    other.post("/accounts/2fa/authenticate/", {"code": code_of(ada)})
    assert is_signed_in(other)

    codes = Authenticator.objects.get(user=ada, type=Authenticator.Type.RECOVERY_CODES).wrap().get_unused_codes()
    third = Browser()
    sign_in(third)
    third.post("/accounts/2fa/authenticate/", {"code": codes[0]})
    assert is_signed_in(third)
    assert actions("second_factor_added", "recovery_code_used") == [
        "account.second_factor_added",
        "account.recovery_code_used",
    ]


def test_sessions_without_the_second_factor_end_when_it_is_set_up(ada: User) -> None:
    old, browser = Browser(), Browser()
    sign_in(old)
    sign_in(browser)
    set_up_second_factor(browser)

    assert is_signed_in(browser)
    assert not is_signed_in(old)


def test_a_session_is_ended_from_another(ada: User) -> None:
    lost, browser = Browser(), Browser()
    sign_in(lost)
    sign_in(browser)
    session = UserSession.objects.get(session_key=lost.session.session_key)
    browser.post("/account/sessions/end/", {"session": session.pk})

    assert is_signed_in(browser)
    assert not is_signed_in(lost)
    assert actions("sessions_ended") == ["account.sessions_ended"]


def test_sessions_of_others_are_out_of_reach(ada: User) -> None:
    victim, browser = Browser(), Browser()
    sign_in(victim)
    sign_in(browser, name=a_user("eve").username)
    browser.post("/account/sessions/end/", {"session": UserSession.objects.get(user=ada).pk})

    assert is_signed_in(victim)


def test_a_password_is_reset_by_e_mail_and_sessions_end(ada: User) -> None:
    old, browser = Browser(), Browser()
    sign_in(old)
    browser.post("/accounts/password/reset/", {"email": "ada@example.org"})
    link = re.search(r"http://testserver(\S+)", str(mail.outbox[0].body))
    assert link
    form = browser.get(link[1])["Location"]
    browser.post(form, {"password1": "another long password", "password2": "another long password"})

    assert not is_signed_in(old)
    sign_in(browser, "another long password")
    assert is_signed_in(browser)
    assert actions("password_changed") == ["account.password_changed"]


def test_a_reset_tells_nobody_who_has_an_account(ada: User) -> None:
    known = Browser().post("/accounts/password/reset/", {"email": "ada@example.org"}, follow=True)
    unknown = Browser().post("/accounts/password/reset/", {"email": "nobody@example.org"}, follow=True)

    assert (known.status_code, known.redirect_chain) == (unknown.status_code, unknown.redirect_chain)


def test_changing_the_address_takes_a_fresh_sign_in(ada: User) -> None:
    browser = Browser()
    browser.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    answer = browser.post("/account/email/", {"email": "eve@example.org"})

    assert answer["Location"].startswith("/accounts/reauthenticate/")
    ada.refresh_from_db()
    assert ada.email == "ada@example.org"


def test_nobody_signs_up_by_themselves(db: None) -> None:
    Browser().post("/accounts/signup/", {"username": "eve", "password1": "a long enough password"})

    assert not User.objects.filter(username="eve").exists()


def test_the_provider_opens_an_account_that_was_linked_to_it(ada: User, provider: OidcProvider) -> None:
    browser = Browser()
    sign_in(browser)
    by_provider(browser, "connect")
    assert SocialAccount.objects.get(user=ada).uid == "1"

    other = Browser()
    by_provider(other)
    assert is_signed_in(other)
    assert actions("single_sign_on_linked", "signed_in")[-2:] == ["account.single_sign_on_linked", "account.signed_in"]


def test_an_account_is_not_taken_by_its_e_mail_address(ada: User, provider: OidcProvider, settings: Settings) -> None:
    settings.OIDC_SIGNUP = True
    provider.claims |= {"sub": "2", "preferred_username": "ada", "email_verified": True}
    browser = Browser()
    by_provider(browser)

    assert is_signed_in(browser)
    assert browser.get("/account/").wsgi_request.user != ada


def test_whom_the_provider_knows_gets_an_account_only_if_the_installation_says_so(
    db: None, provider: OidcProvider, settings: Settings
) -> None:
    stranger = Browser()
    by_provider(stranger)
    assert not is_signed_in(stranger)
    assert not User.objects.exists()

    settings.OIDC_SIGNUP = True
    by_provider(stranger)
    assert is_signed_in(stranger)
    assert not User.objects.get(username="ada").has_usable_password()


def test_an_invitation_opens_the_way_for_single_sign_on(db: None, provider: OidcProvider) -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    _, link = invite(federation, owner, Role.AUDITOR)
    path = urlsplit(link).path
    browser = Browser()
    assert "Hospital sign-on" in browser.get(path).content.decode()
    by_provider(browser)
    browser.post(path)

    assert federation.memberships.get(role=Role.AUDITOR).user.username == "ada"


@pytest.mark.parametrize("spoil", ["audience", "state"])
def test_what_the_provider_says_to_others_opens_nothing(
    db: None, provider: OidcProvider, settings: Settings, spoil: str
) -> None:
    settings.OIDC_SIGNUP = True
    browser = Browser()
    if spoil == "audience":
        provider.audience = "another client"
        by_provider(browser)
    else:
        browser.get("/accounts/oidc/sso/login/callback/?code=x&state=forged")

    assert not is_signed_in(browser)


def test_a_second_factor_is_asked_for_after_single_sign_on_too(ada: User, provider: OidcProvider) -> None:
    browser = Browser()
    sign_in(browser)
    by_provider(browser, "connect")
    set_up_second_factor(browser)

    other = Browser()
    assert by_provider(other)["Location"].startswith("/accounts/2fa/authenticate/")
    assert not is_signed_in(other)


@pytest.fixture
def federation(ada: User) -> Federation:
    return a_federation("hearts", ada)


@pytest.mark.parametrize("by", ["federation", "installation"])
def test_who_needs_a_second_factor_sees_nothing_before_it_is_set_up(
    ada: User, federation: Federation, settings: Settings, by: str
) -> None:
    if by == "federation":
        Federation.objects.update(second_factor="managers")
    else:
        settings.SECOND_FACTOR = "managers"
    browser = Browser()
    sign_in(browser)
    assert not Federation.objects.visible_to(ada).exists()
    answer = browser.get("/f/hearts/clients/")
    assert answer.status_code == 403
    assert "Set up a second factor first" in answer.content.decode()

    set_up_second_factor(browser)
    assert browser.get("/f/hearts/clients/").status_code == 200


def test_the_admin_has_no_door_of_its_own(ada: User) -> None:
    answer = Browser().get("/admin/login/")

    assert answer.status_code == 302 and "/login/" in answer["Location"]
