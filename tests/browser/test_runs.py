from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from fedui.runs.models import Run, RunStatus
from tests.browser.conftest import Open
from tests.support.population import LONG_NAME, ROUNDS, World


def test_a_run_shows_its_figures(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    expect(page.locator("#progress-title")).to_have_text(f"{ROUNDS} of {ROUNDS} rounds")
    expect(page.locator("#kpi-accuracy .v")).to_have_text("80.0%")
    expect(page.locator("#kpi-clients .v")).to_have_text("2of 2 answered")
    expect(page.locator("#metrics .main-svg").first).to_be_visible()
    expect(page.locator("#timeline .canvas rect.t")).to_have_count(2 * ROUNDS)
    expect(page.locator("#events li")).to_have_count(2 + 2 * ROUNDS)
    assert complaints == []


def test_only_charts_wait_for_their_library(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    held: list[Route] = []
    page.route("**/plotly.min*.js", lambda route: held.append(route))  # noqa: PLW0108  # Playwright writes to the handler that it is given
    page.goto(f"{world.root}runs/{world.run.pk}/", wait_until="commit")
    expect(page.locator("#kpi-accuracy .v")).to_have_text("80.0%")
    expect(page.locator("#timeline .canvas rect.t")).to_have_count(2 * ROUNDS)
    expect(page.locator("#events li")).to_have_count(2 + 2 * ROUNDS)
    expect(page.locator("#metrics .plot")).to_be_empty()
    for route in held:
        route.continue_()
    expect(page.locator("#metrics .main-svg").first).to_be_visible()
    assert complaints == []


def test_without_its_library_a_chart_points_to_its_table(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.route("**/plotly.min*.js", lambda route: route.abort())
    page.goto(f"{world.root}runs/{world.run.pk}/")
    expect(page.locator("#metrics .nochart")).to_contain_text("The figures are in the table view")


def test_charts_that_nobody_has_come_near_are_printed(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.set_viewport_size({"width": 1440, "height": 300})
    page.goto(f"{world.root}runs/{world.run.pk}/")
    expect(page.locator("#metrics .main-svg").first).to_be_visible()
    expect(page.locator("#traffic .main-svg")).to_have_count(0)
    page.pdf()
    for panel in ("#metrics", "#answers", "#traffic"):
        expect(page.locator(f"{panel} .main-svg").first).to_be_attached()


def test_the_chart_has_a_table_with_the_same_numbers(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    page.locator("#metrics").get_by_role("button", name="Table").click()
    table = page.locator("#metrics .datatable table")
    expect(table.locator("tbody tr")).to_have_count(ROUNDS)
    expect(table.locator("tbody tr").first).to_contain_text("80.0 %")
    expect(page.locator("#metrics .plot")).to_be_hidden()


def test_every_model_can_be_downloaded(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    link = page.locator("#checkpoints a[download]")
    expect(link).to_have_attribute("href", f"/api/v1/runs/{world.run.pk}/models/{ROUNDS}")
    page.keyboard.press("[")
    expect(link).to_have_attribute("href", f"/api/v1/runs/{world.run.pk}/models/{ROUNDS - 1}")
    expect(page.locator("[data-sha]")).to_have_text(f"{ROUNDS - 1:064x}")


def test_the_log_is_filtered(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    page.get_by_label("Kind of events").select_option("round")
    expect(page.locator("#events li")).to_have_count(2 * ROUNDS)
    page.get_by_label("Filter events").fill("committed")
    expect(page.locator("#events li")).to_have_count(ROUNDS)


def test_a_view_of_the_chart_is_in_the_address(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    loss = page.get_by_role("group", name="Metric").get_by_role("button", name="Loss")
    loss.click()
    expect(page).to_have_url(f"{world.root}runs/{world.run.pk}/?metric=loss")
    page.reload()
    expect(loss).to_have_attribute("aria-pressed", "true")


def test_starting_and_cancelling_a_run(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "runs/new/")
    expect(page.get_by_role("region", name="Pre-flight")).to_contain_text("2 clients online offer the app")
    page.get_by_label("Name").fill("second try")
    page.get_by_label("Rounds").fill("5")
    page.get_by_role("button", name="Start run").click()
    expect(page.get_by_role("heading", name="second try")).to_be_visible()
    run = Run.objects.latest("id")
    assert (run.status, run.num_rounds) == (RunStatus.QUEUED, 5)

    page.get_by_role("button", name="Cancel…").click()
    dialog = page.get_by_role("dialog", name="Cancel second try?")
    dialog.get_by_role("button", name="Cancel the run").click()
    expect(page.locator("#run-head")).to_contain_text("Cancelled by owner before it began.")
    run.refresh_from_db()
    assert run.status == RunStatus.STOPPED


def test_a_run_that_cant_be_is_explained(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "runs/new/")
    page.get_by_label("Rounds").fill("0")
    page.get_by_role("button", name="Start run").click()
    expect(page.locator("#id_name-error")).to_be_visible()
    expect(page.locator("#id_num_rounds-error")).to_contain_text("greater than or equal to 1")


def test_clients_by_round_are_a_heatmap_with_the_unusual_marked(
    sign_in: Open, world: World, complaints: list[str]
) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    grid = page.get_by_role("grid", name="Update norm by client and round")
    expect(grid.get_by_role("gridcell")).to_have_count(2 * ROUNDS)
    flagged = grid.get_by_role("gridcell", name="Flagged")
    expect(flagged).to_have_accessible_name(
        f"hosp-elm, round {ROUNDS}: Update norm 1.80 × the median. Flagged: its norm is 1.8 times the median"
    )
    expect(page.locator("#anomalies")).to_contain_text(f"One update was unlike the others in round {ROUNDS}.")
    expect(page.locator("#anomalies li")).to_have_text("hosp-elm: its norm is 1.8 times the median")

    for words in ("unlike the others", "in progress", "not known", "dropped out", "took no part"):
        expect(page.locator("#by-round footer")).to_contain_text(words)

    page.get_by_role("button", name="Cosine").click()
    expect(page).to_have_url(f"{world.root}runs/{world.run.pk}/?heat=cosine")
    expect(page.get_by_role("gridcell", name="Flagged")).to_have_accessible_name(
        f"hosp-elm, round {ROUNDS}: Cosine to the aggregate -0.20. Flagged: its norm is 1.8 times the median"
    )
    assert complaints == []


def test_the_heatmap_is_one_tab_stop_with_arrow_keys(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/?heat=duration")
    heatmap = page.locator("#by-round")
    expect(heatmap.locator("td[tabindex='0']")).to_have_count(1)
    heatmap.get_by_label("z-scores").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    focused = page.locator("td:focus")
    expect(focused).to_have_accessible_name(f"hosp-elm, round {ROUNDS - 1}: Duration 18 s")
    expect(heatmap.locator("[data-read]")).to_have_text(f"hosp-elm, round {ROUNDS - 1}: Duration 18 s")
    page.keyboard.press("ArrowDown")
    expect(focused).to_have_accessible_name(f"{LONG_NAME}, round {ROUNDS - 1}: Duration 18 s")
    expect(heatmap.locator("td[tabindex='0']")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_heatmap_scrolls_and_the_page_does_not(sign_in: Open, world: World, scheme: str) -> None:
    page = sign_in(world.owner, width=390, scheme=scheme)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    expect(page.locator("#by-round td.flag")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
