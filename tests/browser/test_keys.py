from __future__ import annotations

import re

from playwright.sync_api import expect

from fedui.keys.models import ApiKey
from fedui.keys.text import PATTERN
from tests.browser.conftest import Open
from tests.support.population import World


def test_a_key_is_made_shown_once_and_revoked(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "settings/keys/")
    page.get_by_role("button", name="Create key").first.click()
    dialog = page.get_by_role("dialog", name="Create API key")
    dialog.get_by_label("Name").fill("Nightly export")
    dialog.get_by_label("Read and export the audit log").check()
    dialog.get_by_role("button", name="Create key").click()
    reveal = page.get_by_role("dialog", name="Copy the key now")
    text = reveal.locator("#secret").inner_text()
    key = ApiKey.objects.get()
    assert re.fullmatch(PATTERN, text) and text.startswith(key.prefix)
    assert key.scopes == ["audit", "read"]
    reveal.get_by_label("I have stored the key").check()
    reveal.get_by_role("button", name="Done").click()
    expect(page.locator("#keys-list")).to_contain_text("Nightly export")
    assert text not in page.content()

    page.get_by_role("button", name="Revoke Nightly export").click()
    page.get_by_label(re.compile("to confirm")).fill(key.prefix)
    page.get_by_role("button", name="Revoke key").click()
    expect(page.locator("#keys-list")).to_contain_text("Revoked")
    assert complaints == []


def test_the_reference_is_drawn_from_installed_files(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    page.goto("/api/v1/docs")
    expect(page.get_by_role("heading", name=re.compile("FedUI")).first).to_be_visible()
    page.goto("/api/v1/redoc")
    expect(page.get_by_text("The runs of a federation").last).to_be_attached()
    logo = page.get_by_alt_text("redocly logo")
    expect(logo).to_be_attached()  # and empty, since no other site is asked: nothing is shown of it
    expect(logo).to_be_hidden()
    assert complaints == []
