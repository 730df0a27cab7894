"""The readiness board: each reason by what makes it, the same on page and API, and as many queries for many clients as for one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from aggregator.core.config import CohortConfig, StrategyConfig
from fedui.clients.models import Certificate, Client, ClientStatus
from fedui.runs.models import Outcome, Participation, Round
from fedui.runs.preflight import Reason, preflight
from tests.support.population import World, populate


@pytest.fixture
def world(db: None) -> World:
    return populate()


def _reason(world: World, config: StrategyConfig | None = None) -> tuple[str, str]:
    check = preflight(world.federation, world.run.app, config or StrategyConfig(), world.version)
    [standing] = [standing for standing in check.board if standing.client == world.client]
    return standing.reason.value, standing.words


def _change(world: World, **values: Any) -> None:
    Client.objects.filter(pk=world.client.pk).update(**values)


def _lose(world: World) -> None:
    now = timezone.now()
    _change(world, connected=False, last_seen_at=now, lease_expires_at=now)


def _expire(world: World) -> None:
    _lose(world)
    Certificate.objects.filter(client=world.client).update(not_after=timezone.now())


def _offer(world: World, **changes: Any) -> None:
    _change(world, apps=[world.client.apps[0] | changes])


CASES: list[tuple[Callable[[World], None], str, str]] = [
    (lambda world: None, "ready", ""),
    (lambda world: _change(world, status=ClientStatus.SUSPENDED), "suspended", ""),
    (lambda world: _change(world, status=ClientStatus.REVOKED), "revoked", ""),
    (lambda world: _change(world, connected=False), "late", ""),
    (_lose, "offline", ""),
    (_expire, "expired", "The site must enroll again."),
    (lambda world: _change(world, apps=[], protocol_minor=None), "never", ""),
    (lambda world: _offer(world, name="other"), "no_app", "Offers other."),
    (lambda world: _offer(world, version="0.9"), "other_version", "Offers 0.9."),
    (lambda world: _offer(world, problem="w is float64."), "other_model", "w is float64."),
    (lambda world: _change(world, unavailable="Backups tonight."), "unavailable", "Backups tonight."),
]


@pytest.mark.parametrize(("make", "reason", "words"), CASES, ids=[case[1] for case in CASES])
def test_each_reason_is_told_by_its_own_name(
    world: World, make: Callable[[World], None], reason: str, words: str
) -> None:
    make(world)
    assert _reason(world) == (reason, words)


def test_labels_that_are_missing_are_named(world: World) -> None:
    config = StrategyConfig(cohort=CohortConfig(labels={"region": "south", "modality": "ecg"}))
    assert _reason(world, config) == ("labels", "region:south")


def _participate(world: World, number: int, outcome: Outcome, at: timedelta = timedelta()) -> None:
    round_ = Round.objects.create(run=world.run, number=number, started_at=timezone.now() - at)
    Participation.objects.create(round=round_, client=world.client, outcome=outcome, reason="The owner limits epochs.")


def test_a_refusal_counts_until_the_client_takes_part_again_or_a_day_has_passed(world: World) -> None:
    _participate(world, 10, Outcome.REFUSED, timedelta(hours=25))
    assert _reason(world)[0] == "ready"
    _participate(world, 11, Outcome.REFUSED)
    assert _reason(world) == ("refused", "The owner limits epochs.")
    _participate(world, 12, Outcome.PENDING)
    assert _reason(world)[0] == "refused"
    _participate(world, 13, Outcome.COMPLETED)
    assert _reason(world)[0] == "ready"


def test_page_and_api_tell_the_same(world: World, client: Browser) -> None:
    _change(world, unavailable="Backups tonight.")
    client.force_login(world.researcher)
    page = client.get(f"{world.root}clients/readiness/").content.decode()
    assert "1 of 2 would take part" in page
    assert "Backups tonight." in page
    query = {"app": "digits-mlp", "app_version": "1.0", "strategy": "plain"}
    body = client.get("/api/v1/federations/north/readiness", query).json()
    assert (body["ready"], body["enough"], body["strategy"]["version"]) == (1, False, 1)
    assert [(c["ready"], c["reason"], c["detail"]) for c in body["clients"] if c["name"] == "hosp-elm"] == [
        (False, "unavailable", "Backups tonight.")
    ]
    assert client.get("/api/v1/federations/north/readiness", query | {"strategy": "none"}).status_code == 404
    assert client.get("/api/v1/federations/north/readiness").status_code == 400
    new = client.get(f"{world.root}runs/new/").content.decode()
    client.force_login(world.owner)
    new = client.get(f"{world.root}runs/new/").content.decode()
    assert "Backups tonight." in new
    assert 'data-follows="clients vitals"' in new


def test_a_stranger_sees_no_board(world: World, client: Browser) -> None:
    client.force_login(world.stranger)
    assert client.get(f"{world.root}clients/readiness/").status_code == 404
    assert client.get("/api/v1/federations/north/readiness").status_code == 404
    assert client.get("/api/v1/federations/north/clients").status_code == 404
    assert client.get(f"/api/v1/federations/north/clients/{world.client.pk}").status_code == 404


PAGES = ["clients/", "clients/readiness/", "runs/new/", "clients/?sort=-answered", "clients/?q=hosp&presence=online"]


@pytest.mark.parametrize("page", PAGES)
def test_the_number_of_queries_does_not_grow_with_the_clients(world: World, client: Browser, page: str) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get(world.root + page).status_code == 200
        return len(captured)

    client.force_login(world.owner)
    queries()
    few = queries()
    Client.objects.bulk_create(
        Client(federation=world.federation, name=f"site-{n}", number=10 + n, labels={"region": "south"})
        for n in range(250)
    )
    assert queries() <= few + 1  # with over 200, the page has one more panel


def test_every_reason_has_its_group(world: World) -> None:
    check = preflight(world.federation, world.run.app, StrategyConfig())
    assert [reason for reason, _ in check.by_reason] == [Reason.READY]
