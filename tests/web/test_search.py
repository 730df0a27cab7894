"""The palette's search: finds what the member may see, a few of each kind, for a fixed number of queries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from fedui.federations.models import Role
from fedui.federations.services import add_member
from fedui.registry.services import promote
from fedui.runs.models import ModelVersion, Run
from fedui.web.search import MOST
from tests.support.population import World, populate

STATIC = Path(__file__).parent.parent.parent / "static" / "js"
Hits = list[tuple[str, str]]


@pytest.fixture
def world(db: None) -> World:
    return populate()


def hits(world: World, client: Browser, text: str) -> Hits:
    response = client.get(f"{world.root}search/", {"q": text}, headers={"accept": "application/json"})
    return [(hit["group"], hit["text"]) for hit in response.json()["hits"]]


def test_things_are_found_by_name_number_and_label(world: World, client: Browser) -> None:
    promote(ModelVersion.objects.filter(run=world.run).latest("pk"), world.owner, "elm-model")
    client.force_login(world.owner)
    assert ("Runs", f"digits-first #{world.run.pk}") in hits(world, client, f"#{world.run.pk}")
    found = hits(world, client, "elm")
    assert {("Clients", "hosp-elm"), ("Models", "elm-model")} <= set(found)
    assert ("Clients", "hosp-elm") in hits(world, client, "region:north hosp")
    assert hits(world, client, "region:south") == []
    assert ("Strategies", "plain") in hits(world, client, "plain")
    assert ("Actions", "Start a run") in hits(world, client, "start")
    assert ("Runs", f"digits-first #{world.run.pk}") in hits(world, client, "")
    for odd in ("'", "%", "a__b:c", ":", "#", "\x00", "9" * 50, "x " * 100):
        hits(world, client, odd)


def test_roles_find_what_they_may_and_strangers_nothing(world: World, client: Browser) -> None:
    client.force_login(world.stranger)
    assert client.get(f"{world.root}search/", {"q": "elm"}).status_code == 404
    add_member(world.federation, world.stranger, Role.SITE_ADMIN, world.owner, clients=[world.client])
    assert hits(world, client, "hosp") == [("Clients", "hosp-elm")]
    assert hits(world, client, "digits") == []
    assert hits(world, client, "start") == []


def test_search_is_bounded(world: World, client: Browser) -> None:
    client.force_login(world.owner)

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            found = hits(world, client, "digits")
        assert len(found) <= 6 * MOST
        return len(queries)

    before = cost()
    run = world.run
    for number in range(30):
        Run.objects.create(
            federation=run.federation, name=f"digits-{number}", strategy_version=run.strategy_version, app=run.app,
            seed=1, num_rounds=1,
        )  # fmt: skip
    assert cost() == before


def test_without_scripts_the_search_is_a_page(world: World, client: Browser) -> None:
    client.force_login(world.owner)
    page = client.get(f"{world.root}search/?q=elm").content.decode()
    assert f"{world.root}clients/{world.client.pk}/" in page
    assert "Nothing found" in client.get(f"{world.root}search/?q=zzz").content.decode()


def test_every_key_of_the_map_is_handled_and_no_other() -> None:
    listed = set(re.findall(r'\["(.)", "', (STATIC / "keymap.js").read_text()))
    handled: set[str] = set()
    for module in STATIC.rglob("*.js"):
        if "onShortcut" in (text := module.read_text()):
            handled |= set(re.findall(r'key [!=]== "(.)"', text))
    assert handled == listed
