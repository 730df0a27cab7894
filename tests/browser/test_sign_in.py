from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.support.population import World


def test_a_page_asks_to_sign_in_and_comes_back(sign_in: Open, world: World) -> None:
    page = sign_in()
    page.goto(world.root + "clients/")
    page.get_by_label("Account").fill("owner")
    page.get_by_label("Password").fill("x")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Clients")).to_be_visible()


def test_a_wrong_password_is_said_in_place(sign_in: Open, world: World) -> None:
    page = sign_in()
    page.goto("/login/")
    page.get_by_label("Account").fill("owner")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Account or password is wrong")
    expect(page.get_by_label("Account")).to_have_value("owner")


def test_signing_out_ends_the_session(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root)
    page.get_by_role("button", name="Your account").click()
    page.get_by_role("button", name="Sign out").click()
    page.goto(world.root)
    expect(page.get_by_role("heading", name="Sign in to FedUI")).to_be_visible()


def test_who_has_no_federation_makes_one(sign_in: Open, world: World) -> None:
    page = sign_in(world.stranger)
    page.goto("/")
    expect(page.get_by_role("heading", name="Create your first federation")).to_be_visible()
    page.get_by_label("Name").fill("Card fraud pilot")
    page.get_by_role("button", name="Create federation").click()
    expect(page.get_by_role("heading", name="Set up Card fraud pilot")).to_be_visible()
    assert page.url.endswith("/f/card-fraud-pilot/")


def test_a_taken_address_is_said_beside_its_field(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto("/federations/new/")
    page.get_by_label("Name").fill("North")
    page.get_by_role("button", name="Create federation").click()
    expect(page.get_by_text("The address “north” is taken.")).to_be_visible()
    expect(page.get_by_label("Address")).to_have_attribute("aria-invalid", "true")
