"""What a list shows is in its address: it is kept, shared, and come back to."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from fedui.runs.models import Run
from tests.browser.conftest import Open
from tests.support.gallery import Gallery, furnish
from tests.support.population import World

REFRESH = "(id) => document.getElementById(id).dispatchEvent(new CustomEvent('refresh'))"


@pytest.fixture
def gallery(transactional_db: None) -> Gallery:
    return furnish()


def test_a_filtered_list_of_runs_stays_so_when_it_is_brought_up_to_date(
    sign_in: Open, world: World, complaints: list[str]
) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/?sort=-accuracy")
    page.get_by_label("Filter runs").fill("again")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile(r"\?q=again&sort=-accuracy$"))
    page.evaluate("document.activeElement.blur()")
    Run.objects.filter(pk=world.other_run.pk).update(name="once again")
    page.evaluate(REFRESH, "runs-list")
    expect(page.locator("tbody tr")).to_contain_text("once again")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Filter runs")).to_have_value("again")
    page.get_by_role("link", name="Completed").click()
    expect(page).to_have_url(re.compile(r"q=again.*status=completed"))
    expect(page.locator("tbody tr")).to_have_count(1)
    assert complaints == []


def test_ticked_runs_stay_ticked_through_filters_orders_and_a_reload(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/")
    page.get_by_label(f"Select run {world.run.pk}").check()
    page.get_by_label("Filter runs").fill("again")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(re.compile(f"sel={world.run.pk}"))
    page.get_by_role("link", name="Best accuracy").click()
    expect(page).to_have_url(re.compile("sort=accuracy"))
    page.get_by_label(f"Select run {world.other_run.pk}").check()
    page.reload()
    expect(page.locator("#compare [data-n]")).to_have_text("2")


@pytest.mark.parametrize(
    ("path", "narrow", "address", "left"),
    [
        ("runs/", lambda page: page.get_by_label("Filter runs").fill("again"), "q=again", 1),
        ("clients/", lambda page: page.get_by_label("Filter clients").fill("elm"), "q=elm", 1),
        ("audit/", lambda page: page.get_by_label("Kind of action").select_option("key"), "kind=key", 3),
    ],
)
def test_one_comes_back_to_a_list_as_one_left_it(
    sign_in: Open, gallery: Gallery, path: str, narrow: object, address: str, left: int
) -> None:
    page: Page = sign_in(gallery.world.owner)
    page.goto(gallery.world.root + path)
    assert callable(narrow)
    narrow(page)
    rows = page.locator("main table.table").last.locator("tbody tr")
    expect(page).to_have_url(re.compile(address))
    expect(rows).to_have_count(left)
    seen = rows.all_inner_texts()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(re.compile(address))
    expect(rows).to_have_count(left)
    assert [row.split()[0] for row in rows.all_inner_texts()] == [row.split()[0] for row in seen]
    page.go_back()
    page.go_forward()
    expect(rows).to_have_count(left)
