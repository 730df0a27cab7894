"""Acts that no other browser test does: each by its button, on a phone, to its word of success."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from fedui.accounts.models import User
from fedui.alerts.models import Alert, AlertRule
from fedui.bookmarks.models import SavedView
from fedui.reports.models import Share
from tests.browser.conftest import Open
from tests.support.gallery import Gallery, furnish
from tests.support.population import LONG_NAME

pytestmark = pytest.mark.timeout(300)  # one of everything takes a while to make


@pytest.fixture
def gallery(transactional_db: None) -> Gallery:
    return furnish()


@pytest.fixture
def page(sign_in: Open, gallery: Gallery) -> Page:
    return sign_in(gallery.world.owner, width=390, connected=True)


def test_an_alert_is_acknowledged_and_one_is_muted(page: Page, gallery: Gallery, complaints: list[str]) -> None:
    page.goto(gallery.address("alerts/"))
    page.get_by_role("button", name=f"Acknowledge {LONG_NAME}").click()
    expect(page.locator("#alerts-list")).to_contain_text("owner looks after it")
    page.get_by_role("button", name="Mute").first.click()
    page.get_by_role("dialog", name="Mute").get_by_role("button", name="Mute", exact=True).click()
    expect(page.locator("#alerts-list")).to_contain_text("muted, ends")
    assert Alert.objects.filter(acknowledged_at=None, status="firing").count() == 0
    assert complaints == []


def test_a_rule_is_tried_switched_and_removed(page: Page, gallery: Gallery, complaints: list[str]) -> None:
    rule = AlertRule.objects.get(pk=str(gallery.names["rule"]))
    page.goto(gallery.address("settings/"))
    page.get_by_role("switch", name=rule.name).click()
    expect(page.get_by_role("switch", name=rule.name)).to_have_attribute("aria-checked", "false")
    page.get_by_role("link", name=f"Change {rule.name}").click()
    page.get_by_label("Offline for").fill("90")
    expect(page.locator("#preview")).to_contain_text("fired")
    page.get_by_role("button", name="Save").click()
    rule.refresh_from_db()
    assert (rule.enabled, rule.settings["minutes"]) == (False, 90)
    page.goto(gallery.address("settings/rules/{rule}/"))
    page.get_by_role("button", name="Remove the rule").click()
    expect(page.get_by_role("switch", name=rule.name)).to_have_count(0)
    assert complaints == []


def test_a_webhook_gets_a_secret_shown_once_and_is_removed_by_its_name(
    page: Page, gallery: Gallery, complaints: list[str]
) -> None:
    page.goto(gallery.address("settings/webhooks/{webhook}/"))
    page.get_by_role("button", name="New secret").click()
    reveal = page.locator("dialog#reveal")
    reveal.get_by_role("checkbox").check()
    reveal.get_by_role("button", name="Done").click()
    page.get_by_role("button", name="Remove…").click()
    dialog = page.get_by_role("dialog", name="Remove Pager of the night?")
    expect(dialog.get_by_role("button", name="Remove webhook")).to_be_disabled()
    dialog.get_by_role("textbox").fill("Pager of the night")
    dialog.get_by_role("button", name="Remove webhook").click()
    expect(page.get_by_role("heading", name="Settings", level=1)).to_be_visible()
    assert not gallery.world.federation.webhooks.exists()
    assert complaints == []


def test_a_report_is_shared_by_a_link_that_is_taken_back(page: Page, gallery: Gallery, complaints: list[str]) -> None:
    page.goto(gallery.address("runs/{run}/shares/"))
    page.get_by_label("For whom").fill("The auditors")
    page.get_by_role("button", name="Make the link").click()
    link = page.get_by_label("Link", exact=True).inner_text()
    page.get_by_role("button", name="Take back").first.click()
    expect(page.locator("#shares")).to_contain_text("taken back")
    assert Share.objects.filter(revoked_at=None).count() == 1
    assert link.rpartition("/reports/")[2]
    assert complaints == []


def test_a_saved_view_is_renamed_and_deleted(page: Page, gallery: Gallery, complaints: list[str]) -> None:
    page.goto(gallery.address("views/"))
    page.get_by_role("button", name="Change Offline in the annex").click()
    dialog = page.get_by_role("dialog", name="Change the view")
    dialog.get_by_label("Name").fill("Offline")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("Offline")
    page.get_by_role("button", name="Delete Offline").click()
    expect(page.get_by_role("heading", name="No saved views yet")).to_be_visible()
    assert not SavedView.objects.exists()
    assert complaints == []


def test_an_account_is_deactivated(sign_in: Open, gallery: Gallery, complaints: list[str]) -> None:
    page = sign_in(gallery.people["root"], width=390, connected=True)
    page.goto("/installation/")
    page.get_by_role("button", name="Actions on stranger").click()
    page.get_by_role("button", name="Deactivate and sign out").click()
    expect(page.locator("tr", has_text="stranger")).to_contain_text("deactivated")
    assert not User.objects.get(username="stranger").is_active
    assert complaints == []


def test_the_audit_log_is_verified(page: Page, gallery: Gallery, complaints: list[str]) -> None:
    page.goto(gallery.address("audit/"))
    page.get_by_role("button", name="Verify now").click()
    expect(page.locator("main")).to_contain_text("Chain verified up to entry")
    assert complaints == []
