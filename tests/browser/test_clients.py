from __future__ import annotations

from playwright.sync_api import expect

from fedui.clients.models import ClientStatus
from tests.browser.conftest import Open
from tests.support.population import World


def test_the_list_is_filtered_in_place(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "clients/")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Filter clients").fill("elm")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(f"{world.root}clients/?q=elm&presence=")
    page.get_by_label("Filter clients").fill("nobody")
    expect(page.get_by_role("heading", name="No client matches")).to_be_visible()


def test_revoking_a_client(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}clients/{world.client.pk}/")
    page.get_by_role("button", name="Revoke…").click()
    dialog = page.get_by_role("dialog", name="Revoke hosp-elm?")
    dialog.get_by_role("textbox").fill("hosp")
    expect(dialog.get_by_role("button", name="Revoke client")).to_be_disabled()
    dialog.get_by_role("textbox").fill("hosp-elm")
    dialog.get_by_role("button", name="Revoke client").click()
    expect(page.get_by_role("status")).to_contain_text("hosp-elm is revoked.")
    world.client.refresh_from_db()
    assert world.client.status == ClientStatus.REVOKED
