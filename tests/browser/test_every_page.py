"""What holds for every page: it is whole, quiet, open to everybody, and fits a phone."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open
from tests.support.population import World

PAGES = [
    "", "runs/", "runs/new/", "runs/{run}/", "runs/compare/?runs={run},{other}",
    "clients/", "clients/{client}/", "clients/readiness/", "strategies/", "strategies/new/",
    "strategies/plain/", "apps/", "models/", "models/?view=runs", "models/digits-mlp/", "models/digits-mlp/1/",
    "runs/{run}/promote/", "runs/{run}/shares/", "runs/{run}/report/",
    "search/?q=hosp", "views/", "queries/", "queries/new/", "queries/{query}/",
    "tokens/", "tokens/?dialog=create", "audit/", "settings/", "settings/keys/?dialog=create",
    "alerts/", "settings/rules/new/?kind=metric_threshold",
    "/account/", "/accounts/password/change/", "/accounts/reauthenticate/",
]  # fmt: skip


WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def _visit(page: Page, world: World, path: str) -> None:
    root = "" if path.startswith("/") else world.root
    page.goto(
        root + path.format(run=world.run.pk, other=world.other_run.pk, client=world.client.pk, query=world.query.pk)
    )
    expect(page.locator("h1")).to_have_count(1)
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_complains_or_shuts_anybody_out(
    sign_in: Open, world: World, complaints: list[str], scheme: str
) -> None:
    page = sign_in(world.owner, scheme=scheme)
    barriers = {}
    for path in PAGES:
        _visit(page, world, path)
        assert complaints == [], path
        found = Axe().run(page, options={"runOnly": WCAG, "resultTypes": ["violations"]})
        if found.violations_count:
            barriers[path] = found.generate_report()
    assert not barriers, "\n".join(f"{path}: {report}" for path, report in barriers.items())


def test_no_page_scrolls_sideways_on_a_phone(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner, width=390)
    for path in PAGES:
        _visit(page, world, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_every_control_has_a_name(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    for path in PAGES:
        _visit(page, world, path)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, a[href], input:not([type=hidden]), select')]
            .filter((e) => e.checkVisibility() && !e.ariaLabel && !e.textContent.trim() && !e.labels?.length)
            .map((e) => e.outerHTML)"""
        )
        assert nameless == [], path
