"""Theme, navigation, keyboard."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.support.population import World


def test_the_theme_is_kept_and_set_before_first_paint(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root)
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "auto")
    for theme in ("light", "dark"):
        page.get_by_role("button", name="Switch theme").click()
        expect(root).to_have_attribute("data-theme", theme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.add_init_script(
        "new MutationObserver(() => { if (document.body) window.atFirst ??= document.documentElement.dataset.theme })"
        ".observe(document, { childList: true, subtree: true })"
    )
    page.reload()
    assert page.evaluate("window.atFirst") == "dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_the_navigation_opens_on_a_phone(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner, width=390)
    page.goto(world.root)
    link = page.get_by_role("navigation", name="Main").get_by_role("link", name="Runs")
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    link.click()
    expect(page.get_by_role("heading", name="Runs", level=1)).to_be_visible()


def test_single_keys_go_to_pages_and_can_be_switched_off(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root)
    page.keyboard.press("g")
    page.keyboard.press("c")
    expect(page).to_have_url(f"{world.root}clients/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Your account").click()
    page.get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_hidden()


def test_the_switcher_lists_ones_own_federations(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root)
    page.locator(".switcher").click()
    menu = page.locator("#federations")
    expect(menu.get_by_role("link")).to_have_text(["NNorthern cardiology", "New federation"])


def test_the_page_of_the_api_has_the_theme_of_the_others(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner, scheme="dark")
    page.goto("/api/v1/docs")
    expect(page.locator("html")).to_have_class("dark-mode")
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).not_to_have_class("dark-mode")
