from __future__ import annotations

import re

from playwright.sync_api import expect

from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.federations.models import Role
from fedui.federations.services import add_member
from fedui.strategies.models import Strategy, StrategyVersion
from tests.browser.conftest import Open
from tests.support.population import World


def test_errors_are_said_beside_their_fields(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/new/")
    page.get_by_role("textbox", name="Name").fill("Not a slug")
    page.get_by_label("Fraction of the clients").fill("1.5")
    page.get_by_label("Local epochs").fill("many")
    page.get_by_role("button", name="Save strategy").click()
    expect(page.locator("#id_cohort_fraction-notes .error")).to_contain_text("Must be less than or equal to 1")
    expect(page.locator("#id_local_epochs-notes .error")).to_contain_text("Write a whole number.")
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


def test_the_meaning_follows_the_form_and_outlives_an_error(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/plain/")
    meaning = page.get_by_role("region", name="What this means")
    expect(meaning).to_contain_text("Each trains 2 epochs")
    page.get_by_label("Local epochs").fill("7")
    expect(meaning).to_contain_text("Each trains 7 epochs")
    expect(page.get_by_label("The strategy as YAML")).to_contain_text("epochs: 7")
    page.get_by_label("Local epochs").fill("0")
    expect(meaning).to_contain_text("Local epochs: Must be greater than or equal to 1.")
    expect(meaning).to_contain_text("Each trains 7 epochs")
    training = page.get_by_role("region", name="Local training")
    expect(training).to_contain_text("1 to correct")
    expect(page.locator("#id_local_epochs-notes .error")).to_contain_text("Must be greater")
    expect(page.get_by_label("Local epochs")).to_be_focused()
    page.get_by_label("Local epochs").fill("3")
    expect(meaning).to_contain_text("Each trains 3 epochs")
    expect(meaning.locator(".bad")).to_have_count(0)
    expect(training.get_by_text("1 to correct")).to_be_hidden()
    expect(page.locator("#id_local_epochs-notes .error")).to_have_count(0)
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


def test_choosing_a_part_shows_its_settings_alone(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/new/")
    malicious = page.locator("#id_aggregation_krum_malicious")
    expect(malicious).to_be_hidden()
    page.get_by_role("textbox", name="Name").fill("krum-adam")
    page.get_by_label("Rule", exact=True).select_option(label="Krum")
    malicious.fill("2")
    page.get_by_label("Optimizer", exact=True).select_option(label="Adam")
    expect(page.locator("#meaning-errors")).to_contain_text("Krum with these settings needs at least 7 updates")
    page.get_by_label("Fewest clients to begin a round").fill("8")
    page.get_by_label("Fewest updates that make a round count").fill("7")
    expect(page.locator("#meaning")).to_contain_text("Tolerates 2 wrong updates of at least 7")
    page.get_by_role("button", name="Save strategy").click()
    expect(page.get_by_role("heading", name="krum-adam")).to_be_visible()
    expect(malicious).to_be_visible()
    assert Strategy.objects.get(name="krum-adam").latest.parsed.algorithm == "krum + adam"


def test_yaml_fills_the_form_and_a_bad_one_is_explained(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/new/")
    page.get_by_role("textbox", name="Name").fill("from-yaml")
    page.get_by_label("Local epochs").fill("5")
    expect(page.get_by_label("The strategy as YAML")).to_contain_text("epochs: 5")
    page.get_by_role("button", name="Edit as YAML").click()
    dialog = page.get_by_role("dialog", name="Edit as YAML")
    text = dialog.get_by_role("textbox")
    expect(text).to_be_focused()
    expect(text).to_have_value(re.compile("epochs: 5"))
    text.fill("aggregation: {name: magic}")
    dialog.get_by_role("button", name="Fill the form").click()
    expect(dialog.get_by_role("alert")).to_contain_text("aggregation: There is none named 'magic'")
    expect(text).to_have_value("aggregation: {name: magic}")
    text.fill("aggregation: {name: trimmed_mean}\nlocal: {epochs: 7}")
    dialog.get_by_role("button", name="Fill the form").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_label("Local epochs")).to_have_value("7")
    expect(page.get_by_role("textbox", name="Name")).to_have_value("from-yaml")
    expect(page.get_by_label("Rule", exact=True)).to_have_value("trimmed_mean")
    page.get_by_role("button", name="Save strategy").click()
    expect(page.get_by_role("heading", name="from-yaml")).to_be_visible()
    assert Strategy.objects.get(name="from-yaml").latest.parsed.algorithm == "trimmed_mean"


def test_the_yaml_can_be_downloaded(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/plain/")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "plain.yaml"
    assert StrategyConfig.from_yaml(download.value.path().read_text()) == world.version.parsed


def test_who_may_not_define_strategies_reads_them(sign_in: Open, world: World) -> None:
    auditor = User.objects.create_user("auditor")
    add_member(world.federation, auditor, Role.AUDITOR, world.owner)
    page = sign_in(auditor)
    page.goto(world.root + "strategies/plain/")
    expect(page.get_by_label("Local epochs")).to_be_disabled()
    expect(page.get_by_role("button", name="Edit as YAML")).to_have_count(0)
    expect(page.get_by_role("link", name="Download")).to_be_visible()


def test_a_version_of_the_first_schema_opens_and_is_saved_as_the_newest(sign_in: Open, world: World) -> None:
    strategy = world.version.strategy
    old = {"schema_version": 1, "algorithm": "fedavg", "local": {"epochs": 4}}
    StrategyVersion.objects.create(strategy=strategy, number=2, config=old)
    page = sign_in(world.owner)
    page.goto(world.root + "strategies/")
    expect(page.get_by_role("row", name="plain")).to_contain_text("mean")
    page.goto(world.root + "strategies/plain/")
    expect(page.get_by_label("Local epochs")).to_have_value("4")
    page.get_by_label("Batch size").fill("8")
    page.get_by_role("button", name="Save as version 3").click()
    expect(page.get_by_role("status")).to_contain_text("Saved as version 3.")
    assert strategy.latest.config["schema_version"] == 2
    assert strategy.latest.parsed.local.epochs == 4
