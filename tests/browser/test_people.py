"""From an invitation to a member with a second factor, and back out again, as people do it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from playwright.sync_api import expect

from fedui.audit.models import AuditEvent
from tests.browser.conftest import Open
from tests.support.population import World

PASSWORD = "a long enough password"


def test_from_an_invitation_to_a_member_and_out(sign_in: Open, world: World, complaints: list[str]) -> None:
    owner, ada = sign_in(world.owner), sign_in()
    owner.goto(world.root + "settings/")
    owner.get_by_role("button", name="Invite").click()
    owner.get_by_role("dialog", name="Invite a member").get_by_label("Role").select_option("auditor")
    owner.get_by_role("button", name="Make the link").click()
    link = owner.locator("#secret").text_content() or ""
    owner.get_by_label("I have passed the link on").check()
    owner.get_by_role("button", name="Done").click()

    ada.goto(urlsplit(link).path)
    ada.get_by_label("Account").fill("ada")
    ada.get_by_label("Password", exact=True).fill(PASSWORD)
    ada.get_by_label("Password again").fill(PASSWORD)
    ada.get_by_role("button", name="Create account and join").click()
    expect(ada.get_by_role("navigation", name="Main").get_by_role("link", name="Audit")).to_be_visible()

    owner.reload()
    owner.get_by_role("button", name="Remove ada").click()
    owner.get_by_label("Type ada to confirm").fill("ada")
    owner.get_by_role("button", name="Remove member").click()
    expect(owner.get_by_text("ada is no member any more.")).to_be_visible()
    answer = ada.goto(world.root)
    assert answer is not None and answer.status == 404
    assert [c for c in complaints if "404" not in c] == []


def test_a_second_factor_is_set_up_and_asked_for(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in()
    page.goto("/account/")
    page.get_by_label("Account").fill("owner")
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Set up…").click()
    secret = page.get_by_label("Or type this secret there").input_value()
    counters = list(yield_hotp_counters_from_time())
    page.get_by_label("Authenticator code").fill(str(format_hotp_value(hotp_value(secret, counters[0]))))
    page.get_by_role("button", name="Set it up").click()
    codes = re.findall(r"\b[0-9a-f]{8}\b", page.locator(".code pre").text_content() or "")
    page.get_by_role("link", name="I have stored them").click()
    expect(page.get_by_text("Authenticator app, since")).to_be_visible()

    other = sign_in()
    other.goto(world.root + "audit/")
    other.get_by_label("Account").fill("owner")
    other.get_by_label("Password").fill("x")
    other.get_by_role("button", name="Sign in").click()
    other.get_by_label("Code").fill(codes[0])
    other.get_by_role("button", name="Sign in").click()
    expect(other.get_by_role("heading", name="Audit log")).to_be_visible()
    assert AuditEvent.objects.filter(action="account.recovery_code_used").exists()
    assert complaints == []
