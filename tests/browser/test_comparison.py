from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.support.population import World


def test_runs_are_ticked_in_the_list_and_compared(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "runs/")
    expect(page.locator("#compare")).to_be_hidden()
    page.get_by_label(f"Select run {world.run.pk}").check()
    compare = page.get_by_role("button", name="Compare")
    expect(compare).to_be_disabled()
    page.get_by_label(f"Select run {world.other_run.pk}").check()
    compare.click()
    expect(page.get_by_role("heading", name="Compare 2 runs")).to_be_visible()
    expect(page.locator("#curves .main-svg").first).to_be_visible()
    page.get_by_role("link", name="Change selection").click()
    expect(page.locator("#compare [data-n]")).to_have_text("2")
    assert complaints == []


def test_the_view_of_the_curves_is_in_the_address(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/compare/?runs={world.run.pk},{world.other_run.pk}")
    page.get_by_role("button", name="Loss").click()
    page.get_by_role("button", name="Traffic").click()
    page.get_by_label("Smoothing").fill("0.5")
    page.get_by_role("button", name="digits-again").click()
    page.reload()
    expect(page.get_by_role("button", name="Loss")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Traffic")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Smoothing")).to_have_value("0.5")
    page.get_by_role("button", name="Table").click()
    expect(page.locator("#curves .datatable tbody tr")).to_have_count(1)
    assert complaints == []


def test_settings_that_are_the_same_are_shown_on_demand(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/compare/?runs={world.run.pk},{world.other_run.pk}")
    same = page.get_by_role("row", name="cohort.fraction")
    expect(page.get_by_role("row", name="seed")).to_be_visible()
    expect(same).to_be_hidden()
    page.get_by_label("Only differences").uncheck()
    expect(same).to_be_visible()
