from __future__ import annotations

from playwright.sync_api import expect

from fedui.strategies.models import Strategy
from tests.browser.conftest import Open
from tests.support.population import World


def test_errors_are_said_beside_their_fields(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/new/")
    page.get_by_role("textbox", name="Name").fill("Not a slug")
    page.get_by_label("Fraction of the clients").fill("1.5")
    page.get_by_label("Local epochs").fill("many")
    page.get_by_role("button", name="Save strategy").click()
    expect(page.locator("[id='id_cohort_fraction-error']")).to_contain_text("Must be less than or equal to 1")
    expect(page.locator("[id='id_local_epochs-error']")).to_contain_text("Write a whole number.")
    expect(page.locator("#id_name-error")).to_be_visible()
    expect(page.get_by_label("Local epochs")).to_have_value("many")
    assert Strategy.objects.count() == 1


def test_an_error_of_several_fields_is_said_above_them(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/new/")
    page.get_by_role("textbox", name="Name").fill("greedy")
    page.get_by_label("Fewest updates that make a round count").fill("9")
    page.get_by_role("button", name="Save strategy").click()
    expect(page.get_by_role("alert")).to_contain_text("such a round could never count")


def test_the_meaning_follows_the_form(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/plain/")
    meaning = page.get_by_role("region", name="What this means")
    expect(meaning).to_contain_text("Each trains 2 epochs")
    page.get_by_label("Local epochs").fill("7")
    expect(meaning).to_contain_text("Each trains 7 epochs")
    page.get_by_label("Local epochs").fill("0")
    expect(meaning).to_contain_text("1 to correct")
    assert world.version.strategy.latest.parsed.local.epochs == 2


def test_saving_makes_a_version(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/plain/")
    page.get_by_label("Learning rate", exact=True).fill("0.05")
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.get_by_role("status")).to_contain_text("Saved as version 2.")
    page.get_by_role("button", name="Save as version 3").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing has changed.")
    assert world.version.strategy.versions.count() == 2


def test_yaml_fills_the_form_and_a_bad_one_is_explained(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/new/")
    page.get_by_role("textbox", name="Name").fill("from-yaml")
    page.get_by_text("As YAML", exact=True).click()
    text = page.get_by_label("The strategy as YAML").and_(page.locator("textarea"))
    text.fill("aggregation: {name: magic}")
    page.get_by_role("button", name="Fill the form from this").click()
    expect(page.get_by_role("alert")).to_contain_text("does not match any of the expected tags")
    expect(text).to_have_value("aggregation: {name: magic}")
    text.fill("aggregation: {name: median}\nlocal: {epochs: 7}")
    page.get_by_role("button", name="Fill the form from this").click()
    expect(page.get_by_label("Local epochs")).to_have_value("7")
    expect(page.get_by_role("textbox", name="Name")).to_have_value("from-yaml")
    page.get_by_role("button", name="Save strategy").click()
    expect(page.get_by_role("heading", name="from-yaml")).to_be_visible()
    assert Strategy.objects.get(name="from-yaml").latest.parsed.algorithm == "median"
