"""A query's page: cancelling takes a second word, and a histogram has its table on demand."""

from __future__ import annotations

from playwright.sync_api import expect

from fedui.analytics.models import Query, QueryStatus
from tests.browser.conftest import Open
from tests.support.population import World


def test_cancelling_says_what_is_lost(sign_in: Open, world: World, complaints: list[str]) -> None:
    query = Query.objects.create(federation=world.federation, app=world.run.app, config=world.query.config)
    page = sign_in(world.owner, width=390)
    page.goto(f"{world.root}queries/{query.pk}/")
    page.get_by_role("button", name="Cancel the query…").click()
    dialog = page.get_by_role("dialog", name=f"Cancel query #{query.pk}?")
    expect(dialog).to_be_focused()
    expect(dialog).to_contain_text("What clients have answered so far is dropped")
    dialog.get_by_role("button", name="Let it go on").click()
    expect(dialog).to_be_hidden()
    query.refresh_from_db()
    assert query.status == QueryStatus.QUEUED
    page.get_by_role("button", name="Cancel the query…").click()
    dialog.get_by_role("button", name="Cancel the query").click()
    expect(page.get_by_text("Cancelled by owner.")).to_be_visible()
    expect(page.get_by_role("button", name="Cancel the query…")).to_have_count(0)
    assert complaints == []


def test_the_histogram_has_titles_on_its_axes_and_a_table(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.researcher, width=390)
    page.goto(f"{world.root}queries/{world.query.pk}/")
    figure = page.get_by_role("figure")
    for title in ("Values in a bin", "mean intensity", "180"):
        expect(figure.get_by_text(title, exact=True)).to_be_visible()
    table = page.get_by_role("region", name="Table of the bins")
    expect(table.locator("tr")).to_have_count(0)
    page.get_by_text("Table of the bins").click()
    expect(table.get_by_role("row")).to_have_count(1 + 5)
    expect(table.get_by_role("row").nth(3)).to_have_text("1014180")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert complaints == []
