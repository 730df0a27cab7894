from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from fedui.clients.models import EnrolmentToken
from tests.browser.conftest import Open
from tests.support.population import World


def _create(page: Page, world: World) -> str:
    page.goto(world.root + "tokens/")
    page.get_by_role("button", name="Create token").first.click()
    dialog = page.get_by_role("dialog", name="Create enrollment token")
    expect(dialog.get_by_label("Purpose")).to_be_focused()
    dialog.get_by_label("Purpose").fill("Replacement for hosp-olive")
    dialog.get_by_label("Uses").fill("2")
    dialog.get_by_text("7 days").click()
    dialog.get_by_label("Labels the clients get").fill("region:coast")
    dialog.get_by_label("An operator admits each client").check()
    dialog.get_by_role("button", name="Create token").click()
    reveal = page.get_by_role("dialog", name="Copy the token now")
    expect(reveal).to_be_visible()
    return reveal.locator("#secret").inner_text()


def test_a_token_is_shown_once(sign_in: Open, world: World, complaints: list[str]) -> None:
    page = sign_in(world.owner)
    secret = _create(page, world)
    token = EnrolmentToken.objects.latest("id")
    assert re.fullmatch(rf"fle_{token.key_id}\.[\w-]{{43}}\.[\w-]{{43}}", secret)
    assert (token.max_uses, token.labels, token.requires_approval) == (2, {"region": "coast"}, True)
    reveal = page.get_by_role("dialog", name="Copy the token now")
    expect(reveal.locator("pre").first).to_contain_text(f"/install.sh | FEDAGENT_TOKEN={secret} sh")
    reveal.get_by_text("fedagent is installed already").click()
    expect(page.locator("#command")).to_contain_text(f"--token {secret} && fedagent run")

    done = page.get_by_role("button", name="Done")
    expect(done).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#reveal")).to_be_visible()
    page.get_by_label("I have stored the token").check()
    done.click()
    expect(page.locator("#reveal")).to_have_count(0)
    expect(page.locator("#tokens-list")).to_contain_text("Replacement for hosp-olive")
    assert secret not in page.content()
    page.reload()
    assert secret not in page.content()
    assert complaints == []


def test_a_wrong_label_is_said_beside_its_field(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "tokens/?dialog=create")
    page.get_by_label("Purpose").fill("Lab")
    page.get_by_label("Labels the clients get").fill("coast")
    page.locator("#create-form").get_by_role("button", name="Create token").click()
    expect(page.locator("#id_labels-error")).to_contain_text("“coast” is not a label")
    expect(page.get_by_label("Purpose")).to_have_value("Lab")
    assert EnrolmentToken.objects.count() == 1


def test_revoking_takes_the_typed_name(sign_in: Open, world: World) -> None:
    page = sign_in(world.owner)
    page.goto(world.root + "tokens/")
    page.get_by_role("button", name="Revoke…").click()
    dialog = page.get_by_role("dialog", name="Revoke this token?")
    revoke = dialog.get_by_role("button", name="Revoke token")
    expect(revoke).to_be_disabled()
    dialog.get_by_role("textbox").fill(EnrolmentToken.objects.get().key_id)
    revoke.click()
    expect(page.locator("#tokens-list")).to_contain_text("Revoked")
    assert EnrolmentToken.objects.get().state == "revoked"
