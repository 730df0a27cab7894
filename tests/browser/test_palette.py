"""The palette, the key map and saved views, by keyboard alone."""

from __future__ import annotations

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.test_every_page import WCAG
from tests.support.population import World


def test_the_palette_by_keyboard(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "runs/")
    page.keyboard.press("Control+k")
    field = page.get_by_role("combobox", name="Search runs, clients")
    expect(field).to_be_focused()
    expect(page.get_by_role("option", selected=True)).to_have_text("New run")  # what the page itself offers
    page.keyboard.type("hosp-elm")
    option = page.get_by_role("option", name="hosp-elm")
    expect(option).to_have_attribute("aria-selected", "true")
    assert field.get_attribute("aria-activedescendant") == option.get_attribute("id")
    found = Axe().run(page, options={"runOnly": WCAG, "resultTypes": ["violations"]})
    assert not found.violations_count, found.generate_report()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"{world.root}clients/{world.client.pk}/$"))
    page.get_by_role("link", name="Search and commands").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("zzz nothing")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Search and commands")).to_be_focused()
    assert complaints == []


def test_keys_go_to_pages_and_the_sheet_lists_them(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "runs/")
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(sheet.get_by_text("Go to a page, then its letter")).to_be_visible()
    expect(sheet.get_by_text("Models", exact=True)).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="digits-again")).to_be_focused()
    page.keyboard.press("g")
    page.keyboard.press("m")
    expect(page.get_by_role("heading", name="Models", level=1)).to_be_visible()


def test_a_view_is_saved_as_the_page_stands_now(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "runs/?status=completed")
    page.get_by_label("Filter runs").fill("again")
    expect(page.get_by_role("link", name="digits-first")).to_have_count(0)  # the address follows the field
    page.get_by_role("button", name="Saved views").click()
    page.get_by_role("button", name="Save this view…").click()
    page.get_by_label("Name", exact=True).fill("Again, completed")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Saved as “Again, completed”.")).to_be_visible()
    assert page.url.endswith("runs/?status=completed&q=again") or page.url.endswith("runs/?q=again&status=completed")
    page.get_by_role("button", name="Saved views").click()
    expect(page.get_by_role("link", name="Again, completed")).to_have_attribute("aria-current", "true")
