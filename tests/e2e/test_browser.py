"""A newcomer's first hour in Chromium, against the real platform with real agents."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from safetensors.numpy import load_file

from tests.e2e.platform import Platform

pytestmark = [pytest.mark.browser, pytest.mark.e2e, pytest.mark.timeout(300)]

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SCREENSHOT = os.environ.get("FEDUI_SCREENSHOT")
SITES = ("hosp-alder", "hosp-birch", "hosp-cedar", "hosp-elm")
ROUNDS = 12
MILLISECONDS = 45_000


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform")) as platform:
        platform.create_user("operator", "a long enough password")
        yield platform


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(chromium: Browser, platform: Platform) -> Iterator[Page]:
    context = chromium.new_context(base_url=platform.url, viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(MILLISECONDS)
    yield page
    context.close()


@pytest.fixture(autouse=True)
def no_complaints(page: Page) -> Iterator[None]:
    """Nothing that a page writes to the console as an error goes unseen.

    A lost connection is no fault of the page, nor is a check of a form that was given up because a newer one overtook
    it, or the page was left: htmx notes that as an error.
    """
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield
    harmless = ("ERR_CONNECTION", "WebSocket", "htmx:sendAbort", "htmx:sendError", "htmx:afterRequest")
    assert not [text for text in complaints if not any(word in text for word in harmless)]


def has(locator: Locator, text: str | re.Pattern[str]) -> None:
    expect(locator).to_contain_text(text, timeout=MILLISECONDS)


def go(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()


def test_signing_in_and_creating_a_federation(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Account", exact=True).fill("operator")
    page.get_by_label("Password", exact=True).fill("a long enough password")
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_role("textbox", name="Name").fill("Northern hospitals")
    page.get_by_role("button", name="Create federation").click()
    has(page.locator("h1"), "Set up Northern hospitals")


def test_agents_that_enrol_with_the_line_shown_come_online(page: Page, platform: Platform) -> None:
    go(page, "Tokens")
    page.get_by_role("button", name="Create token").first.click()
    page.get_by_label("Purpose").fill("First sites")
    page.get_by_label("Uses").fill(str(len(SITES)))
    page.locator("#create-form").get_by_role("button", name="Create token").click()
    page.get_by_text("fedagent is installed already").click()
    line = page.locator("#command").inner_text()
    page.get_by_label("I have stored the token").check()
    page.get_by_role("button", name="Done").click()

    go(page, "Clients")
    for index, name in enumerate(SITES):
        pace = 1.0 if name == SITES[-1] else 0.3
        platform.run_agent(
            line, name, f"partition={index}", f"partitions={len(SITES)}", "alpha=0.5", f"slowdown={pace}"
        )
    for name in SITES:  # without a reload
        has(page.locator("tr", has_text=name), "Online")


def test_a_strategy_is_defined(page: Page) -> None:
    go(page, "Strategies")
    page.get_by_role("link", name=re.compile("New strategy|Create a strategy")).first.click()
    page.get_by_role("textbox", name="Name").fill("fedavg-first")
    page.get_by_label("Fewest clients to begin a round").fill("3")
    page.get_by_role("button", name="Save strategy").click()
    go(page, "Strategies")
    has(page.get_by_role("region", name="Strategies"), "fedavg-first")


def test_a_run_is_started_and_moves_before_the_eyes(page: Page) -> None:
    go(page, "Runs")
    page.get_by_role("link", name=re.compile("New run|Start a run")).first.click()
    page.get_by_role("textbox", name="Name").fill("digits-first")
    page.get_by_label("Rounds").fill(str(ROUNDS))
    has(page.locator("#preflight"), "4 clients online offer the app")
    page.get_by_role("button", name="Start run").click()
    has(page.locator("#run-head"), "Running")
    has(page.locator("#live-list"), re.compile("Training|Done"))
    points = page.locator("#metrics .scatterlayer .trace path.js-line").first
    expect(points).to_be_attached(timeout=MILLISECONDS)
    drawn = points.get_attribute("d")
    has(page.locator("#progress-title"), re.compile("Round [5-9]"))
    expect(points).not_to_have_attribute("d", drawn or "", timeout=MILLISECONDS)
    expect(page.locator("#timeline .canvas rect.t").first).to_be_attached()
    if SCREENSHOT:
        has(page.locator("#progress-title"), re.compile("Round 8"))
        page.screenshot(path=SCREENSHOT)


def test_the_page_comes_through_a_restart_of_the_web_server(page: Page, platform: Platform) -> None:
    platform.kill("uvicorn")
    expect(page.locator(".live")).to_have_attribute("data-state", "reconnecting", timeout=MILLISECONDS)
    has(page.locator("#run-head"), "Completed")
    has(page.locator("#progress-title"), f"{ROUNDS} of {ROUNDS} rounds")
    page.locator("#metrics").get_by_role("button", name="Table").click()
    rounds = page.locator("#metrics .datatable tbody tr td:first-child, #metrics .datatable tbody tr th:first-child")
    assert sorted(int(text) for text in rounds.all_inner_texts()) == list(range(ROUNDS + 1))


def test_no_event_was_missed_or_shown_twice(page: Page) -> None:
    run_id = page.url.rstrip("/").rpartition("/")[2].partition("?")[0]
    answer = page.request.get(f"/api/v1/runs/{run_id}/events?limit=1000").json()
    stored = [e["seq"] for e in answer["events"]]
    assert stored == list(range(1, len(stored) + 1))
    page.get_by_label("Kind of events").select_option("round")
    told = [e["message"] for e in answer["events"] if e["level"] == "round"]
    expect(page.locator("#events ol li")).to_have_count(len(told))
    for shown, message in zip(page.locator("#events ol li").all_inner_texts(), told, strict=True):
        assert message in shown


def test_the_model_is_downloaded_and_loads(page: Page, tmp_path: Path) -> None:
    with page.expect_download() as download:
        page.locator("#checkpoints a[download]").click()
    download.value.save_as(tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["hidden.weight"].shape == (64, 32)
    assert tensors["output.bias"].shape == (10,)


def test_a_run_is_stopped_while_it_trains(page: Page) -> None:
    page.get_by_role("link", name="Clone").click()
    page.get_by_role("textbox", name="Name").fill("digits-stopped")
    page.get_by_role("button", name="Start run").click()
    has(page.locator("#live-list"), "Training")
    page.get_by_role("button", name="Stop…").click()
    dialog = page.get_by_role("dialog", name="Stop digits-stopped?")
    dialog.get_by_role("textbox").fill("digits-stopped")
    dialog.get_by_role("button", name="Stop the run").click()
    has(page.locator("#run-head"), "Stopped by operator.")
    has(page.locator("#events"), "Run stopped")


def test_a_revoked_client_is_cut_off_at_once(page: Page) -> None:
    go(page, "Clients")
    page.get_by_role("link", name=SITES[0]).first.click()
    page.get_by_role("button", name="Revoke…").click()
    dialog = page.get_by_role("dialog", name=re.compile("Revoke"))
    dialog.get_by_role("textbox").fill(SITES[0])
    dialog.get_by_role("button", name=re.compile("^Revoke")).click()
    has(page.locator("main"), "Revoked")
    go(page, "Clients")
    has(page.locator("tr", has_text=SITES[0]), "Revoked")
    has(page.locator("tr", has_text=SITES[1]), "Online")
