"""The pages without a browser: who gets what, and for how many queries."""

from __future__ import annotations

import pytest
from django.test import Client as Browser
from pytest_django import DjangoAssertNumQueries

from fedui.clients.models import Client
from fedui.federations.models import Act, Role
from fedui.federations.services import add_member
from tests.support.population import World, populate

READ = [
    "", "runs/", "clients/", "strategies/", "strategies/plain/", "apps/", "models/", "models/?view=runs", "queries/", "search/", "views/",
    "settings/",
]  # fmt: skip
GUARDED = {
    "runs/new/": Act.MANAGE_RUNS,
    "queries/new/": Act.MANAGE_RUNS,
    "strategies/new/": Act.MANAGE_STRATEGIES,
    "tokens/": Act.MANAGE_CLIENTS,
    "audit/": Act.READ_AUDIT,
}


@pytest.fixture
def world(db: None) -> World:
    return populate()


@pytest.mark.parametrize("path", [*READ, *GUARDED])
def test_a_stranger_learns_nothing(world: World, client: Browser, path: str) -> None:
    client.force_login(world.stranger)
    assert client.get(world.root + path).status_code == 404


@pytest.mark.parametrize("path", [*READ, *GUARDED])
def test_nobody_is_sent_to_the_sign_in(world: World, client: Browser, path: str) -> None:
    response = client.get(world.root + path)
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/login/?next=")


def test_a_fragment_sends_the_whole_window_to_the_sign_in(world: World, client: Browser) -> None:
    response = client.get(world.root + "clients/", headers={"hx-request": "true"})
    assert response.headers["HX-Redirect"].startswith("/login/")


@pytest.mark.parametrize(
    "role", [role for role in Role if role != Role.SITE_ADMIN]
)  # whose pages are in test_members.py
def test_a_role_opens_what_it_may(world: World, client: Browser, role: Role) -> None:
    membership = add_member(world.federation, world.stranger, role, world.owner)
    client.force_login(world.stranger)
    for path in READ:
        assert client.get(world.root + path).status_code == 200, path
    for path, act in GUARDED.items():
        assert client.get(world.root + path).status_code == (200 if membership.may(act) else 403), path


@pytest.mark.parametrize(
    "path", ["runs/{run}/do/stop/", "queries/1/cancel/", "clients/{client}/revoke/", "tokens/new/", "strategies/plain/"]
)
def test_an_auditor_changes_nothing(world: World, client: Browser, path: str) -> None:
    add_member(world.federation, world.stranger, Role.AUDITOR, world.owner)
    client.force_login(world.stranger)
    address = world.root + path.format(run=world.run.pk, client=world.client.pk)
    assert client.post(address, {"confirm": "digits-first"}).status_code == 403


def test_a_destructive_act_takes_the_typed_name(world: World, client: Browser) -> None:
    client.force_login(world.owner)
    client.post(f"{world.root}clients/{world.client.pk}/revoke/", {"confirm": "hosp"})
    world.client.refresh_from_db()
    assert world.client.status == "active"


def test_a_fragment_is_less_than_its_page(world: World, client: Browser) -> None:
    client.force_login(world.owner)
    for path in (
        "",
        "runs/",
        f"runs/{world.run.pk}/",
        "clients/",
        "apps/",
        "queries/",
        f"queries/{world.query.pk}/",
        "tokens/",
        "audit/",
    ):
        fragment = client.get(world.root + path, headers={"hx-request": "true"})
        assert b"<html" not in fragment.content, path
        assert "HX-Request" in fragment.headers["Vary"], path


@pytest.mark.parametrize(
    ("path", "queries"),
    [
        ("", 16),
        ("runs/", 12),
        ("clients/", 10),
        ("apps/", 11),
        ("models/", 12),
        ("queries/", 10),
        ("strategies/", 11),
        ("settings/", 20),
        ("alerts/", 15),
    ],
)
def test_lists_cost_the_same_however_long(
    world: World, client: Browser, django_assert_max_num_queries: DjangoAssertNumQueries, path: str, queries: int
) -> None:
    template = world.client
    for number in range(10, 30):
        Client.objects.create(
            federation=world.federation,
            name=f"hosp-{number}",
            number=number,
            apps=template.apps,
            labels=template.labels,
        )
    client.force_login(world.owner)
    with django_assert_max_num_queries(queries):
        client.get(world.root + path)


def test_a_model_of_open_length_is_shown_as_that(world: World, client: Browser) -> None:
    world.run.app.signature = [{"name": "ensemble", "dtype": "uint8", "shape": [-1]}]
    world.run.app.save()
    client.force_login(world.owner)
    apps = client.get(f"{world.root}apps/").content.decode()
    assert "A model of open length" in apps
    assert '<td class="num mono">open</td>' in apps
    assert "at most" in client.get(f"{world.root}runs/{world.run.pk}/").content.decode()
    new = client.get(f"{world.root}runs/new/").content.decode()
    assert "choose a rule for trees" in new
    assert "of traffic a round" not in new
