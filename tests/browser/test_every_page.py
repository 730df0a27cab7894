"""What holds for every page in both themes, on a desk and on a phone: it is whole, quiet, open to everybody, and fits. So do its dialogs.

Each is left as a picture in `var/browser`, which CI keeps.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings as django_settings
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Open
from tests.browser.pages import AREAS, NOT_LOOKED_AT, Looked
from tests.security.authorisation import ROWS
from tests.support.gallery import Gallery, furnish

PICTURES = django_settings.BASE_DIR / "var" / "browser"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
AXE = {"runOnly": WCAG, "resultTypes": ["violations"]}
DESK, PHONE = 1440, 390
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SETTLED = """() => Promise.allSettled(document.getAnimations()
    .filter((one) => one.effect.getTiming().iterations !== Infinity).map((one) => one.finished))"""
"""Colours fade from one theme to the other."""
NAMELESS = """() => [...document.querySelectorAll('button, a[href], input:not([type=hidden]), select, textarea')]
    .filter((e) => e.checkVisibility() && !e.ariaLabel && !e.textContent.trim() && !e.labels?.length).map((e) => e.outerHTML)"""
OPENERS = "main [data-dialog], main button[popovertarget], main [hx-get][hx-target$='-slot']"
OPENERS_OF_FRAME = ".top [data-dialog], .top button[popovertarget], .top [data-palette], .top [data-shortcuts]"
"""What stands on each page alike, and is opened on the first alone."""
OPENED = "dialog[open], [popover]:popover-open"
WHAT_OPENS = """(one) => one.dataset.dialog ?? one.getAttribute('popovertarget') ?? one.getAttribute('hx-target')?.slice(1)
    ?? ['palette', 'shortcuts'].find((name) => name in one.dataset)"""


@pytest.fixture
def gallery(transactional_db: None, settings: Any) -> Gallery:
    settings.ROOT_URLCONF = "tests.browser.broken_urls"
    return furnish()


class Visitor:
    """Opens the pages of an area as whoever looks at them, and notes what is wrong."""

    def __init__(self, sign_in: Open, gallery: Gallery, complaints: list[str], width: int) -> None:
        self._sign_in, self._gallery, self._complaints, self.width = sign_in, gallery, complaints, width
        self._pages: dict[str, Page] = {}
        self.wrong: list[str] = []

    def visit(self, looked: Looked) -> Page:
        if looked.who not in self._pages:
            user = self._gallery.people[looked.who] if looked.who else None
            self._pages[looked.who] = page = self._sign_in(user, width=self.width, connected=True, fresh=True)
            page.emulate_media(reduced_motion="reduce")
        page = self._pages[looked.who]
        response = page.goto(self._gallery.address(looked.path))
        if not response or response.status != looked.status:
            self.wrong.append(f"{looked.name}: status {response and response.status}, not {looked.status}")
        page.wait_for_load_state("networkidle")
        self._hear(looked)
        return page

    def check(self, page: Page, looked: Looked, *, opened: str = "") -> None:
        """In both themes its width and a picture of it; its barriers in both on a desk, on a phone in one."""
        name = f"{looked.name}--{opened}" if opened else looked.name
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.evaluate(SETTLED)
            if (found := page.evaluate("document.documentElement.scrollWidth")) > self.width:
                self.wrong.append(f"{name}: {found} pixels wide, of {self.width}")
            picture = PICTURES / "pages" / f"{name}-{self.width}-{scheme}.jpg"  # written quicker than a PNG
            page.screenshot(path=picture, quality=80, full_page=looked.is_ours and not opened)
            if looked.is_ours and (self.width > PHONE or scheme == "dark"):
                report = Axe().run(page, context=OPENED if opened else None, options=AXE)
                if report.violations_count:
                    self.wrong.append(f"{name}, {scheme}: {report.generate_report()}")

    def _hear(self, looked: Looked) -> None:
        """An error that the server answered with is noted by Chromium too."""
        expected = f"status of {looked.status} "
        self.wrong += [f"{looked.name}: {text}" for text in self._complaints if expected not in text]
        self._complaints.clear()


@pytest.fixture(params=[DESK, PHONE])
def visitor(request: Any, sign_in: Open, gallery: Gallery, complaints: list[str]) -> Visitor:
    return Visitor(sign_in, gallery, complaints, request.param)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("area", AREAS)
def test_every_page_with_its_dialogs_and_menus(visitor: Visitor, area: str) -> None:
    seen: set[str] = set()
    for looked in AREAS[area]:
        page = visitor.visit(looked)
        if looked.is_ours:
            if page.locator("h1").count() != 1:
                visitor.wrong.append(f"{looked.name}: {page.locator('h1').count()} headings of the page")
            visitor.wrong += [f"{looked.name}: nameless {control}" for control in page.evaluate(NAMELESS)]
        visitor.check(page, looked)
        openers = f"{OPENERS}, {OPENERS_OF_FRAME}" if looked.name == "overview" else OPENERS
        for opener in page.locator(openers).all() if looked.is_ours else ():
            _check_what_it_opens(visitor, page, opener, looked, seen)
    assert not visitor.wrong, "\n".join(visitor.wrong)


def _check_what_it_opens(visitor: Visitor, page: Page, opener: Locator, looked: Looked, seen: set[str]) -> None:
    what = opener.evaluate(WHAT_OPENS)
    opener.evaluate("(one) => one.closest('[popover]')?.showPopover()")
    if what not in seen and opener.is_visible():
        seen.add(what)
        opener.click()
        opened = page.locator(OPENED).last
        expect(opened).to_be_visible()
        box = opened.bounding_box()
        if not box or box["x"] < 0 or box["x"] + box["width"] > visitor.width:
            visitor.wrong.append(f"{looked.name}, {what}: beyond the edge, {box}")
        visitor.check(page, looked, opened=what)
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)
    page.evaluate("document.querySelectorAll(':popover-open').forEach((one) => one.hidePopover())")


def test_every_address_with_a_page_is_looked_at() -> None:
    paths = [
        looked.path if looked.path.startswith("/") else f"/f/north/{looked.path}"
        for area in AREAS.values()
        for looked in area
    ]
    pages = {row.address for row in ROWS if row.method == "GET" and not row.address.startswith("api/")}
    addresses = sorted(pages - set(NOT_LOOKED_AT))
    unseen = [address for address in addresses if not any(_is_of(path, address) for path in paths)]
    assert unseen == []
    assert set(NOT_LOOKED_AT) <= {row.address for row in ROWS}


def _is_of(path: str, address: str) -> bool:
    pattern = "[^/]+".join(re.escape(part) for part in re.split(r"<\w+>", address))
    return re.fullmatch(f"/{pattern}", path.partition("?")[0]) is not None
