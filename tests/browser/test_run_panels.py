"""The run's page beyond a look at it: back in time, many clients, a client's drawer, and without scripts."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from fedui.clients.models import Client
from fedui.runs.models import Outcome, Participation, Run, RunCommand, RunStatus
from tests.browser.conftest import Open
from tests.browser.test_every_page import SETTLED, WCAG
from tests.support.gallery import RIGHT_TO_LEFT
from tests.support.population import ROUNDS, World
from tests.support.run_world import Shape, with_history


def test_every_panel_looks_back_and_a_failed_bar_leads_to_the_log(
    sign_in: Open, world: World, complaints: list[str]
) -> None:
    lost = Participation.objects.filter(round__run=world.run, round__number=2, client=world.client)
    lost.update(outcome=Outcome.LOST, reason="Its connection was lost.")
    event = world.run.events.get(kind="round.committed", round_number=2)
    world.run.events.filter(pk=event.pk).update(client=world.client, message="hosp-elm was lost")
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/?round=2")

    expect(page.locator("[data-shown]")).to_have_text(f"as of round 2 of {ROUNDS}")
    expect(page.locator("#kpi-accuracy .v")).to_have_text("70.0%")
    expect(page.locator("#by-round thead th[aria-label]")).to_have_count(2)
    expect(page.locator("[data-only-words]")).to_have_text("Events of round 2")
    expect(page.locator("[data-critical]")).not_to_be_empty()

    page.locator("#timeline a[data-log-round='2']").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-only-words]")).to_have_text("Events of hosp-elm in round 2")
    expect(page.locator("#events li")).to_have_count(1)
    page.get_by_role("button", name="Back to now").click()
    expect(page.locator("#kpi-accuracy .v")).to_have_text("80.0%")
    expect(page).to_have_url(f"{world.root}runs/{world.run.pk}/")
    page.locator("#events a[data-bar-round='2']").click()
    expect(page.locator("#timeline rect.found")).to_have_count(1)
    assert [one for one in complaints if "/diff/" not in one] == []  # this world's models have no files


def a_long_run(world: World, *, clients: int, rounds: int) -> Run:
    """Paused after so many rounds of new clients."""
    run = world.other_run
    for things in (run.rounds, run.metrics, run.models, run.events):
        things.all().delete()
    with_history(run, Shape(clients=clients, rounds=rounds))
    Run.objects.filter(pk=run.pk).update(
        status=RunStatus.PAUSED, rounds_done=rounds, num_rounds=rounds + 18, ended_at=None
    )
    return run


def test_of_many_clients_the_unusual_are_named_and_one_is_excluded(
    sign_in: Open, world: World, complaints: list[str]
) -> None:
    run = a_long_run(world, clients=120, rounds=12)
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{run.pk}/?heat=loss&z=1")
    heat = page.locator("#by-round")
    expect(heat.locator("td[data-quantile='0.5']")).to_have_count(12)
    expect(heat.locator("[data-page-shown]")).to_have_text("120 clients")
    heat.get_by_label("Find a client").fill("site-0042")
    expect(heat.locator("tbody tr")).to_have_count(1)

    heat.locator("td[data-client]").first.click()
    drawer = page.locator("#client-drawer")
    expect(drawer.get_by_role("heading", name="site-0042")).to_be_visible()
    expect(drawer.locator("svg .line")).to_have_count(5)
    drawer.get_by_role("button", name="Exclude…").click()
    dialog = page.get_by_role("dialog", name="Exclude site-0042 from the next rounds?")
    button = dialog.get_by_role("button", name="Exclude the client")
    expect(button).to_be_disabled()
    dialog.get_by_label("Type site-0042 to confirm").fill("site-0042")
    button.click()
    expect(page.locator("[data-commands]")).to_contain_text("site-0042 is excluded from round 13 on")
    assert RunCommand.objects.get().data["client"] == str(Client.objects.get(name="site-0042").pk)
    assert complaints == []


def test_in_every_state_it_shuts_nobody_out_and_fits_a_phone(
    sign_in: Open, world: World, complaints: list[str]
) -> None:
    Client.objects.filter(pk=world.client.pk).update(name=RIGHT_TO_LEFT)
    page = sign_in(world.owner)
    barriers = {}
    for status in set(RunStatus) - {RunStatus.PAUSING, RunStatus.STOPPING}:  # which look like running
        Run.objects.filter(pk=world.run.pk).update(name=f"{RIGHT_TO_LEFT} 7", status=status)
        page.goto(f"{world.root}runs/{world.run.pk}/")
        expect(page.locator("#metrics .main-svg").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        for scheme, width in (("light", 1440), ("dark", 390)):
            page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(SETTLED)  # colours fade from one theme to the other
            found = Axe().run(page, options={"runOnly": WCAG, "resultTypes": ["violations"]})
            if found.violations_count:
                barriers[status, scheme] = found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, status
        page.set_viewport_size({"width": 1440, "height": 900})
    assert not barriers, "\n".join(f"{where}: {report}" for where, report in barriers.items())
    page.locator("#by-round td[data-client]").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found = Axe().run(page, context="#client-drawer", options={"runOnly": WCAG, "resultTypes": ["violations"]})
    assert not found.violations_count, found.generate_report()
    assert [one for one in complaints if "/diff/" not in one] == []


@pytest.mark.parametrize("width", [1440, 390])
def test_without_scripts_it_is_facts_and_forms(chromium: Browser, sign_in: Open, world: World, width: int) -> None:
    Run.objects.filter(pk=world.run.pk).update(status=RunStatus.PAUSED)
    with_scripts = sign_in(world.owner)
    with_scripts.goto(world.root)
    context = chromium.new_context(
        java_script_enabled=False,
        viewport={"width": width, "height": 844},
        storage_state=with_scripts.context.storage_state(),
    )
    page = context.new_page()
    page.goto(with_scripts.url + f"runs/{world.run.pk}/")
    expect(page.locator("#kpi-accuracy .v")).to_have_text("80.0 %")
    expect(page.get_by_role("row", name="3 Committed 2 of 2")).to_be_visible()
    page.locator("#stop-confirm").fill(world.run.name)
    page.get_by_role("button", name="Stop the run").click()
    expect(page.locator("#run-head")).to_contain_text("Stopped by owner.")
    context.close()
