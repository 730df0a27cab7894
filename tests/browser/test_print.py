"""On paper: light, as wide as the paper, and without what can only be pressed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from fedui.reports.models import Naming
from fedui.reports.shares import share
from tests.browser.conftest import Open
from tests.browser.test_run_panels import a_long_run
from tests.support.population import World

INSIDE_MARGINS = 688
"""Of A4, in pixels."""
PRESSED = "button, input, select, textarea, nav, dialog, .top, .side"
A_CHOICE = ":is(.seg, .legend) [aria-pressed=true], [data-since]"
"""Says what is shown; in words, on paper."""
TOO_WIDE = """most => [...document.querySelectorAll("main *")]
    .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > most + 1 && !one.closest("svg svg, .sr"))
    .map(one => one.outerHTML.slice(0, 80))"""
SCROLLS = """() => [...document.querySelectorAll("main *")]
    .filter(one => one.checkVisibility() && /auto|scroll/.test(getComputedStyle(one).overflowY) && one.scrollHeight > one.clientHeight + 1)
    .map(one => one.outerHTML.slice(0, 80))"""


def lay_out_for_paper(page: Page) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": INSIDE_MARGINS, "height": 1000})


def test_a_run_is_printed_whole_and_light(sign_in: Open, world: World) -> None:
    run = a_long_run(world, clients=30, rounds=50)
    page = sign_in(world.owner, scheme="dark", connected=True)
    page.goto(f"{world.root}runs/{run.pk}/?rounds=60")
    expect(page.locator("#metrics .main-svg").first).to_be_visible()
    expect(page.locator("#by-round tbody tr")).to_have_count(30)
    expect(page.locator("#events li").first).to_be_visible()

    lay_out_for_paper(page)

    pressed = [one for one in page.locator(PRESSED).all() if one.is_visible()]
    assert [one.inner_text() for one in pressed if not one.evaluate(f"one => one.matches('{A_CHOICE}')")] == []
    assert page.locator("#metrics .seg").first.inner_text() == "Accuracy"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#metrics .xtick text").first.evaluate("one => one.style.fill") == "rgb(93, 101, 117)"
    assert page.evaluate(TOO_WIDE, INSIDE_MARGINS) == []
    assert page.evaluate(SCROLLS) == []

    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.evaluate("document.documentElement.dataset.theme") == "auto"
    expect(page.locator("#metrics [data-axes] button:visible")).to_have_count(3)


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_a_report_is_printed_whole_and_light(sign_in: Open, world: World, shared: bool) -> None:
    run = a_long_run(world, clients=30, rounds=50)
    link = share(run, world.owner, naming=Naming.NUMBERS, lifetime=timedelta(days=1), note="")[1]
    page = sign_in(None if shared else world.owner, scheme="dark")
    page.goto("/" + link.split("/", 3)[3] if shared else f"{world.root}runs/{run.pk}/report/")

    lay_out_for_paper(page)

    expect(page.locator(PRESSED)).to_have_count(0)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(TOO_WIDE, INSIDE_MARGINS) == []
    assert page.evaluate(SCROLLS) == []
