"""The five main pages look as they did: held against pictures in `looks/`. `make screenshots` makes these anew.

Data, clock, motion and fonts are held still: the pages are drawn with fonts that lie beside the pictures. How a version of Chromium smooths
edges is left; that is less than a picture made smaller shows. A page that looks otherwise leaves what was expected, what is there and their
difference in `var/browser/differences`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.utils import timezone
from PIL import Image, ImageChops
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Open
from tests.browser.test_every_page import PICTURES, SETTLED
from tests.support.gallery import Gallery, furnish

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LOOKS = Path(__file__).parent / "looks"
RENEW = bool(os.environ.get("FEDUI_RENEW_LOOKS"))
STORED, HELD = 2, 8
"""How many pixels of the page, along a side, are one of a stored picture, and one of those that are compared."""
UNLIKE = 16
"""Levels of 255 by which a compared pixel differs from the expected."""
MOST_UNLIKE = 0.0005
"""Of a picture's pixels: 15 of a wide one, a word or a button."""
FONTS = """
@font-face { font-family: Looks; font-weight: 400; src: url("/looks/dejavu-sans.woff"); }
@font-face { font-family: Looks; font-weight: 500 700; src: url("/looks/dejavu-sans-bold.woff"); }
:root { --sans: Looks; --mono: Looks; }
"""
HIDDEN = ".side .foot, .fingerprint { visibility: hidden; }"
"""The server's port, and keys that are made anew."""
MAIN_PAGES = {
    "overview": ("", 900, 1900, ".fleet"),
    "run": ("runs/{run}/", 3000, 5600, "#metrics .main-svg"),
    "strategy": ("strategies/new/", 2000, 4400, "#meaning li"),
    "clients": ("clients/", 900, 1900, "#clients-list tbody tr"),
    "compare": ("runs/compare/?runs={run},{other}", 1500, 2600, "#curves .main-svg"),
}
"""By name: path, how high it is looked at on a desk and on a phone, and what is there when it is drawn."""


@pytest.fixture
def gallery(django_db_reset_sequences: None, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    return furnish()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (390, "dark")])
@pytest.mark.parametrize("name", MAIN_PAGES)
def test_a_main_page_looks_as_it_did(sign_in: Open, gallery: Gallery, name: str, width: int, scheme: str) -> None:
    path, on_desk, on_phone, drawn = MAIN_PAGES[name]
    page = sign_in(gallery.world.owner, width=width, scheme=scheme, connected=True)
    hold_still(page, height=on_desk if width > 390 else on_phone)
    page.goto(gallery.address(path))
    expect(page.locator(drawn).first).to_be_visible()
    actual = picture_of(page)
    kept = LOOKS / f"{name}-{width}-{scheme}.png"
    if RENEW:
        actual.quantize(255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(kept, optimize=True)
        return
    assert kept.exists(), f"{kept.name} is missing: make screenshots"
    expected = Image.open(kept).convert("RGB")
    assert is_alike(expected, actual), f"{name} looks otherwise: see {leave(kept.stem, expected, actual)}"


def hold_still(page: Page, *, height: int) -> None:
    page.set_viewport_size({"width": page.viewport_size["width"] if page.viewport_size else 0, "height": height})
    page.emulate_media(reduced_motion="reduce")
    page.clock.set_fixed_time(NOW)
    page.route("**/css/fedui*.css", _with_own_fonts)
    page.route("**/looks/*", lambda route: route.fulfill(path=LOOKS / route.request.url.rpartition("/")[2]))


def _with_own_fonts(route: Route) -> None:
    response = route.fetch()
    route.fulfill(response=response, body=response.text() + FONTS + HIDDEN)


def picture_of(page: Page) -> Image.Image:
    """When it doesn't change any more."""
    page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur()")
    page.evaluate("document.fonts.ready")
    page.evaluate(SETTLED)
    pictures = _shots(page)
    before = next(pictures)
    for picture in pictures:
        if picture == before:
            break
        before = picture
    image = Image.open(io.BytesIO(before)).convert("RGB")
    return image.resize((image.width // STORED, image.height // STORED), Image.Resampling.BOX)


def _shots(page: Page) -> Iterator[bytes]:
    while True:
        yield page.screenshot(animations="disabled")


def is_alike(expected: Image.Image, actual: Image.Image) -> bool:
    if expected.size != actual.size:
        return False
    histogram = _difference(expected, actual).histogram()
    return sum(histogram[UNLIKE:]) <= MOST_UNLIKE * sum(histogram)


def _difference(expected: Image.Image, actual: Image.Image) -> Image.Image:
    """Of the pictures made small, the largest of the three colours'."""
    small = [
        one.resize((one.width * STORED // HELD, one.height * STORED // HELD), Image.Resampling.BOX)
        for one in (expected, actual)
    ]
    red, green, blue = ImageChops.difference(*small).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)


def leave(name: str, expected: Image.Image, actual: Image.Image) -> Path:
    folder = PICTURES / "differences"
    folder.mkdir(parents=True, exist_ok=True)
    expected.save(folder / f"{name}-expected.png")
    actual.save(folder / f"{name}-actual.png")
    if expected.size == actual.size:
        unlike = _difference(expected, actual).point(lambda level: 255 if level >= UNLIKE else level)
        unlike.resize(expected.size, Image.Resampling.NEAREST).save(folder / f"{name}-difference.png")
    return folder


@pytest.mark.parametrize("gone", ["a button", "a word"])
def test_what_is_missing_is_seen(gone: str) -> None:
    page = Image.new("RGB", (720, 450), "white")
    with_it = page.copy()
    box = (600, 40, 660, 56) if gone == "a button" else (100, 100, 150, 106)
    with_it.paste("#3451d1" if gone == "a button" else "#606060", box)
    assert not is_alike(with_it, page)
    assert is_alike(with_it, with_it)
