"""Members see their federations; roles do what they may. Everybody else learns nothing."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.support.population import World


@pytest.mark.parametrize("path", ["", "runs/", "clients/", "strategies/", "tokens/", "settings/"])
def test_a_stranger_gets_404(sign_in: Open, world: World, path: str) -> None:
    page = sign_in(world.stranger)
    response = page.goto(world.root + path)
    assert response is not None and response.status == 404
    expect(page.get_by_role("heading", name="There is nothing at this address")).to_be_visible()
    expect(page.locator("body")).not_to_contain_text(world.federation.name)


def test_what_a_role_cant_do_is_absent(sign_in: Open, world: World) -> None:
    page = sign_in(world.researcher)
    page.goto(world.root)
    navigation = page.get_by_role("navigation", name="Main")
    expect(navigation.get_by_role("link", name="Strategies")).to_be_visible()
    expect(navigation.get_by_role("link", name="Tokens")).to_have_count(0)
    expect(navigation.get_by_role("link", name="Audit")).to_have_count(0)


def test_what_a_role_cant_do_is_refused_with_who_may(sign_in: Open, world: World) -> None:
    page = sign_in(world.researcher)
    response = page.goto(world.root + "tokens/")
    assert response is not None and response.status == 403
    expect(page.get_by_text("takes the role owner or operator")).to_be_visible()
