"""What people do to runs, on their pages."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from fedui.runs.models import CommandKind, ModelVersion, Run, RunCommand, RunRules, RunStatus
from tests.browser.conftest import Open
from tests.support.population import ROUNDS, World


@pytest.fixture
def running(world: World) -> Run:
    """Driven by a worker that this test plays."""
    lease = timezone.now() + timedelta(minutes=10)
    Run.objects.update(status=RunStatus.RUNNING, ended_at=None, num_rounds=9, lease_expires_at=lease)
    return Run.objects.get(pk=world.run.pk)


def open_run(sign_in: Open, world: World) -> Page:
    page = sign_in(world.owner)
    page.goto(f"{world.root}runs/{world.run.pk}/")
    return page


def test_a_run_is_paused_and_the_pause_taken_back(
    sign_in: Open, world: World, running: Run, complaints: list[str]
) -> None:
    page = open_run(sign_in, world)
    page.get_by_role("button", name="Pause…").click()
    dialog = page.get_by_role("dialog", name=f"Pause {running.name}?")
    expect(dialog).to_contain_text("The round in progress is finished first")
    dialog.get_by_role("button", name="Pause after this round").click()
    expect(page.locator("#run-state")).to_have_text(f"Pausing (after round {ROUNDS + 1})")
    page.get_by_role("button", name="Don’t pause").click()
    expect(page.get_by_role("button", name="Pause…")).to_be_visible()
    expect(page.locator("#config [data-commands] li")).to_have_count(2)
    assert complaints == []


def test_a_header_that_comes_between_press_and_release_takes_no_click_away(
    sign_in: Open, world: World, running: Run
) -> None:
    page = open_run(sign_in, world)
    page.get_by_role("button", name="Pause…").hover()
    with page.expect_response(page.url):
        page.evaluate("document.getElementById('run-head').dispatchEvent(new CustomEvent('refresh'))")
        page.mouse.down()
    page.mouse.up()
    expect(page.get_by_role("dialog", name=f"Pause {running.name}?")).to_be_visible()


def test_the_header_follows_what_no_event_tells(sign_in: Open, world: World, running: Run) -> None:
    page = open_run(sign_in, world)
    expect(page.locator("#run-state")).to_contain_text("Stalled")  # the last event is minutes old
    Run.objects.update(lease_expires_at=timezone.now())
    expect(page.locator("#run-state")).to_have_text(
        f"Recovering (worker lost, round {ROUNDS + 1} restarts)", timeout=15_000
    )
    Run.objects.update(status=RunStatus.PAUSED, reason="The disk is full.")
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=15_000)
    expect(page.locator("#run-head")).to_contain_text("The disk is full.")


def test_a_run_is_stopped_by_typing_its_name(sign_in: Open, world: World, running: Run) -> None:
    page = open_run(sign_in, world)
    page.get_by_role("button", name="Stop…").click()
    dialog = page.get_by_role("dialog", name=f"Stop {running.name}?")
    stop = dialog.get_by_role("button", name="Stop the run")
    expect(stop).to_be_disabled()
    dialog.get_by_role("textbox").fill(running.name)
    stop.click()
    expect(page.locator("#run-state")).to_have_text("Stopping")
    expect(page.locator("#run-head")).to_contain_text("Stopped by owner.")


def test_a_run_that_is_complete_is_extended(sign_in: Open, world: World) -> None:
    page = open_run(sign_in, world)
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("button", name="Extend by more rounds…").click()
    page.get_by_label("Rounds in all").fill("12")
    page.get_by_role("button", name="Extend the run").click()
    expect(page.locator("#run-state")).to_have_text("Queued (next)")
    expect(page.locator("#progress-title")).to_have_text(f"{ROUNDS} of 12 rounds")
    expect(page.locator("#metrics .annotation-text", has_text="Extended")).to_have_count(1)
    page.locator("#metrics").get_by_role("button", name="Table").click()
    expect(page.locator("#metrics .datatable")).to_contain_text("Extended by owner")


def test_a_round_is_forked(sign_in: Open, world: World) -> None:
    page = open_run(sign_in, world)
    expect(page.get_by_role("link", name=f"Fork from round {ROUNDS}", exact=True)).to_be_visible()
    page.keyboard.press("[")
    page.get_by_role("link", name=f"Fork from round {ROUNDS - 1}", exact=True).click()
    expect(page.get_by_role("heading", name=f"Fork {world.run.name}")).to_be_visible()
    expect(page.get_by_role("region", name="Pre-flight")).to_contain_text(
        f"Begins with the model of round {ROUNDS - 1} of {world.run.name}."
    )
    page.get_by_label("Name").fill("the fork")
    page.get_by_label("Priority").select_option("High")
    page.get_by_role("button", name="Start the fork").click()
    expect(page.locator("#run-head .meta")).to_contain_text(f"Forked from {world.run.name}, round {ROUNDS - 1}")
    fork = Run.objects.latest("id")
    assert fork.origin == ModelVersion.objects.get(run=world.run, round_number=ROUNDS - 1)
    assert RunCommand.objects.get(kind=CommandKind.FORK).data == {"round": ROUNDS - 1, "run": fork.pk}
    page.goto(f"{world.root}runs/?status=queued")
    row = page.locator("#runs-table tbody tr")
    expect(row).to_contain_text("Queued (next)")
    expect(row).to_contain_text("High priority")


def test_a_model_that_retention_has_removed_offers_no_download(sign_in: Open, world: World) -> None:
    ModelVersion.objects.filter(round_number=1).update(removed_at=timezone.now())
    page = open_run(sign_in, world)
    panel = page.locator("#checkpoints")
    expect(panel).to_contain_text("1 removed by retention")
    expect(panel.get_by_role("link", name=f"Download round {ROUNDS}")).to_be_visible()
    for _ in range(ROUNDS - 1):
        page.keyboard.press("[")
    expect(panel).to_contain_text("Its file was removed by retention on")
    expect(panel.locator("a[download]")).to_be_hidden()


def test_retention_is_set_and_tried(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}settings/")
    page.get_by_label("Models of a run").select_option("The best and the last")
    page.get_by_label("Runs at once").fill("2")
    page.locator("#run-rules").get_by_role("button", name="Save").click()
    expect(page.get_by_text("The settings of runs are saved.")).to_be_visible()
    assert RunRules.objects.get().max_runs == 2
    page.get_by_role("button", name="What would go now?").click()
    expect(page.locator("#dry-run")).to_contain_text("would remove 4 models of 10.4 kB")
