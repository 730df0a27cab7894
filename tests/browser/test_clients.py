from __future__ import annotations

from django.utils import timezone
from playwright.sync_api import expect

from fedui.clients.admission import Applicant, enrol
from fedui.clients.models import Admission, Client, ClientStatus
from fedui.clients.services import create_token
from tests.browser.conftest import Open
from tests.support.domain import a_csr
from tests.support.population import World


def test_the_list_is_filtered_in_place(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "clients/")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Filter clients").fill("elm")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(f"{world.root}clients/?q=elm")
    page.get_by_label("Filter clients").fill("nobody")
    expect(page.get_by_role("heading", name="No client matches")).to_be_visible()


def test_facets_stay_open_while_the_list_is_brought_up_to_date(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "clients/")
    page.get_by_role("button", name="Presence").first.click()
    page.get_by_label("Offline").check()
    expect(page.get_by_role("heading", name="No client matches")).to_be_visible()
    expect(page.locator(".chip.on")).to_have_text("Presence Offline")
    Client.objects.filter(pk=world.client.pk).update(connected=False, lease_expires_at=timezone.now())
    page.evaluate("document.querySelector('#clients-list').dispatchEvent(new CustomEvent('refresh'))")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Offline")).to_be_visible()
    expect(page).to_have_url(f"{world.root}clients/?q=&presence=offline")


def test_a_table_that_was_opened_stays_open_when_the_page_is_brought_up_to_date(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}clients/{world.client.pk}/")
    table = page.locator("#trend-cpu")
    table.locator("summary").click()
    page.evaluate("document.activeElement.blur()")
    Client.objects.filter(pk=world.client.pk).update(vitals={"cpu": 0.77})
    page.evaluate("document.querySelector('#client').dispatchEvent(new CustomEvent('refresh'))")
    expect(page.locator("dl.kpis")).to_contain_text("77 %")
    expect(table.locator("table")).to_be_visible()


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


def test_the_waiting_room(sign_in: Open, world: World, complaints: list[str]) -> None:
    _, text = create_token(world.federation, world.owner, requires_approval=True, max_uses=2)
    enrol(text, a_csr(), Applicant("hosp-oak", "ward-pc-7", "0.2.0", "Linux"))
    enrol(text, a_csr(), Applicant("hosp-fir", "ward-pc-8", "0.2.0", "Linux"))
    page = sign_in(world.owner)
    page.goto(world.root + "clients/")
    room = page.locator("#waiting")
    expect(room.locator("tbody tr")).to_have_count(2)
    expect(room).to_contain_text("ward-pc-7")

    room.get_by_role("row", name="hosp-oak").get_by_role("button", name="Admit").click()
    expect(page.get_by_role("status")).to_contain_text("hosp-oak is admitted.")
    expect(page.locator("#clients-list")).to_contain_text("hosp-oak")

    page.get_by_role("button", name="Refuse…").click()
    dialog = page.get_by_role("dialog", name="Refuse hosp-fir?")
    dialog.get_by_label("Reason").fill("Nobody there knows of it.")
    dialog.get_by_role("button", name="Refuse", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("hosp-fir is refused.")
    expect(page.locator("#waiting")).to_be_hidden()
    assert Admission.objects.get(name="hosp-fir").reason == "Nobody there knows of it."
    assert complaints == []


def test_a_machine_with_another_key_is_admitted_by_name(sign_in: Open, world: World) -> None:
    _, text = create_token(world.federation, world.owner, requires_approval=True)
    enrol(text, a_csr(), Applicant("hosp-elm", "ward-pc-7", "0.2.0", "Linux"))
    page = sign_in(world.owner, width=390)
    page.goto(world.root + "clients/")
    expect(page.locator("#waiting")).to_contain_text("with another key")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Admit…").click()
    dialog = page.get_by_role("dialog", name="Let another key be hosp-elm?")
    expect(dialog.get_by_role("button", name="Admit it")).to_be_disabled()
    dialog.get_by_role("textbox").fill("hosp-elm")
    dialog.get_by_role("button", name="Admit it").click()
    expect(page.get_by_role("status")).to_contain_text("hosp-elm is admitted.")
    assert Admission.objects.get().client == world.client


def test_suspending_and_reinstating_a_client(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(f"{world.root}clients/{world.client.pk}/")
    page.get_by_role("button", name="Suspend…").click()
    page.get_by_role("dialog", name="Suspend hosp-elm?").get_by_role("button", name="Suspend client").click()
    expect(page.get_by_text("Suspended.", exact=True)).to_be_visible()
    page.get_by_role("button", name="Reinstate").click()
    expect(page.get_by_role("status")).to_contain_text("hosp-elm may connect again.")
    world.client.refresh_from_db()
    assert world.client.status == ClientStatus.ACTIVE


def test_the_list_shows_its_last_column_on_a_desk_and_bars_of_readiness_are_there_on_a_phone(
    sign_in: Open, world: World
) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "clients/")
    table = page.locator("#clients-list .table-wrap")
    assert table.evaluate("one => one.scrollWidth <= one.clientWidth")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(world.root + "clients/readiness/")
    assert page.locator(".bars progress").first.evaluate("one => one.clientWidth") > 40
