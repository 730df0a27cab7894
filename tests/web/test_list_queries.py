"""What lists on pages cost: the same number of queries for 500 rows as for 50."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from fedui.accounts.models import User
from fedui.bookmarks.models import SavedView
from fedui.federations.models import Federation
from fedui.registry.models import RegisteredModel
from tests.fedui import test_api_nouns as nouns
from tests.fedui.test_api_nouns import World
from tests.support.domain import a_client, a_federation, a_run, a_user


@pytest.fixture
def world(db: None) -> World:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    RegisteredModel.objects.create(federation=federation, name="grown", created_by=owner)
    return World(federation, owner, a_client(federation, "hosp-1"), a_run(federation, owner))


def _saved_views(world: World, count: int) -> None:
    SavedView.objects.bulk_create(
        SavedView(federation=world.federation, owner=world.owner, name=f"v {n}", page="runs", path="runs/")
        for n in nouns._next(count)
    )


def _accounts(world: World, count: int) -> None:
    User.objects.filter(pk=world.owner.pk).update(is_superuser=True)
    nouns._users(world, count)


def _installed(world: World, count: int) -> None:
    User.objects.filter(pk=world.owner.pk).update(is_superuser=True)
    Federation.objects.bulk_create(Federation(name=f"F {n}", slug=f"i-{n}") for n in nouns._next(count))


PAGES: dict[tuple[str, str], Callable[[World, int], Any]] = {
    ("/f/hearts/", "runs"): nouns._runs,
    ("/f/hearts/", "alerts"): nouns._alerts,
    ("/f/hearts/runs/", "runs"): nouns._runs,
    ("/f/hearts/runs/{run}/", "rounds"): nouns._rounds,
    ("/f/hearts/runs/{run}/", "models"): nouns._models,
    ("/f/hearts/runs/{run}/shares/", "shares"): nouns._shares,
    ("/f/hearts/clients/", "clients"): nouns._clients,
    ("/f/hearts/clients/waiting/", "admissions"): nouns._admissions,
    ("/f/hearts/clients/{client}/", "participations"): nouns._participations,
    ("/f/hearts/clients/{client}/", "connections"): nouns._connections,
    ("/f/hearts/clients/{client}/", "certificates"): nouns._certificates,
    ("/f/hearts/strategies/", "strategies"): nouns._strategies,
    ("/f/hearts/strategies/plain/", "versions"): nouns._versions,
    ("/f/hearts/apps/", "apps"): nouns._apps,
    ("/f/hearts/models/", "models"): nouns._registered,
    ("/f/hearts/models/grown/", "versions"): nouns._registered_versions,
    ("/f/hearts/models/?view=runs", "checkpoints"): nouns._models,
    ("/f/hearts/queries/", "queries"): nouns._queries,
    ("/f/hearts/tokens/", "tokens"): nouns._tokens,
    ("/f/hearts/alerts/", "alerts"): nouns._alerts,
    ("/f/hearts/views/", "views"): _saved_views,
    ("/f/hearts/audit/", "entries"): nouns._entries,
    ("/f/hearts/settings/", "members"): nouns._users,
    ("/f/hearts/settings/", "invitations"): nouns._invitations,
    ("/f/hearts/settings/", "rules and webhooks"): nouns._alert_rules,
    ("/f/hearts/settings/keys/", "keys"): nouns._keys,
    ("/installation/", "accounts"): _accounts,
    ("/installation/federations/", "federations"): _installed,
    ("/", "federations"): nouns._federations,
}


@pytest.mark.parametrize(("page", "what"), PAGES, ids=lambda part: part)
def test_a_list_costs_as_many_queries_for_500_rows_as_for_50(world: World, page: str, what: str) -> None:
    grow = PAGES[page, what]
    few, many = (5, 20) if grow is nouns._entries else (50, 450)  # entries of the audit log are chained one by one
    browser, path = Browser(), page.format(run=world.run.pk, client=world.client.pk)
    browser.force_login(world.owner)
    costs = []
    for more in (few, many):
        grow(world, more)
        with CaptureQueriesContext(connection) as made:
            assert browser.get(path, follow=True).status_code == 200
        costs.append(len(made))
    assert costs[0] == costs[1]
