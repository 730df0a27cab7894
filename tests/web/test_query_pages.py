"""The pages of queries, whatever became of the query and whoever looks."""

from __future__ import annotations

import pytest
from django.test import Client as Browser

from fedui.analytics.models import Query, QueryStatus
from fedui.audit.models import AuditEvent
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member, create_federation
from tests.support.population import World, populate


@pytest.fixture
def world(db: None) -> World:
    return populate()


def a_query(world: World, status: QueryStatus = QueryStatus.QUEUED, federation: Federation | None = None) -> Query:
    return Query.objects.create(
        federation=federation or world.federation, app=world.run.app, config=world.query.config, status=status
    )


@pytest.mark.parametrize("status", QueryStatus)
def test_a_query_without_a_result_is_shown_like_any_other(world: World, client: Browser, status: QueryStatus) -> None:
    query = a_query(world, status)
    client.force_login(world.owner)
    listed = client.get(f"{world.root}queries/")
    assert listed.status_code == 200
    assert f"#{query.pk}, " in listed.content.decode()
    assert '<td class="num" data-l="Values">–</td>' in listed.content.decode()
    assert '<td class="num" data-l="Values">400</td>' in listed.content.decode()
    assert client.get(f"{world.root}queries/{query.pk}/").status_code == 200


def with_histogram(query: Query, bins: int | None) -> None:
    histogram = bins and {
        "edges": [index / 7 for index in range(bins + 1)],
        "counts": [index * 37 % 1_013 for index in range(bins)],
        "below": 0,
        "above": 3,
    }
    query.result = (query.result or {}) | {"histogram": histogram}
    query.save()


@pytest.mark.parametrize("bins", [1, 100, 101, 1_000])
def test_a_histogram_of_many_bins_is_a_small_page_and_a_table_on_demand(
    world: World, client: Browser, bins: int
) -> None:
    with_histogram(world.query, bins)
    client.force_login(world.stranger)
    address = f"{world.root}queries/{world.query.pk}/"
    assert client.get(f"{address}bins/").status_code == 404
    client.force_login(world.owner)
    shown = client.get(address).content.decode()
    assert len(shown) < 60_000
    assert shown.count("<rect ") == (bins if bins <= 100 else 0)
    assert shown.count('<path d="M0 200V') == (bins > 100)
    table = client.get(f"{address}bins/").content.decode()
    assert table.count("<tr>") == 1 + bins + 1, "a head, the bins, and what lies above"
    assert f'<td class="num">{bins / 7:,.6g}</td><td class="num">–</td><td class="num">3</td>' in table


def test_without_a_histogram_there_is_no_table(world: World, client: Browser) -> None:
    client.force_login(world.owner)
    assert client.get(f"{world.root}queries/{a_query(world).pk}/bins/").status_code == 404
    with_histogram(world.query, None)
    assert client.get(f"{world.root}queries/{world.query.pk}/bins/").status_code == 404


def test_who_may_cancels_and_it_is_written_down(world: World, client: Browser) -> None:
    query = a_query(world)
    client.force_login(world.researcher)
    response = client.post(f"{world.root}queries/{query.pk}/cancel/", follow=True)
    assert "Cancelled by res." in response.content.decode()
    event = AuditEvent.objects.get(action="query.cancelled")
    assert (event.federation, event.actor, event.details["query"]) == (world.federation, world.researcher, query.pk)


def test_what_has_ended_can_not_be_cancelled(world: World, client: Browser) -> None:
    client.force_login(world.owner)
    response = client.post(f"{world.root}queries/{world.query.pk}/cancel/", follow=True)
    assert "is completed and can&#x27;t become cancelled" in response.content.decode()
    world.query.refresh_from_db()
    assert world.query.status == QueryStatus.COMPLETED
    assert not AuditEvent.objects.filter(action="query.cancelled").exists()


def test_a_stranger_sees_no_query(world: World, client: Browser) -> None:
    client.force_login(world.stranger)
    assert client.get(f"{world.root}queries/{world.query.pk}/").status_code == 404
    assert client.post(f"{world.root}queries/{a_query(world).pk}/cancel/").status_code == 404


def test_a_query_is_found_in_its_own_federation_alone(world: World, client: Browser) -> None:
    """Also for a member of both."""
    other = create_federation("Southern cardiology", "south", world.stranger)
    add_member(other, world.owner, Role.OPERATOR, world.stranger)
    query = a_query(world, federation=other)
    client.force_login(world.owner)
    assert client.get(f"/f/south/queries/{query.pk}/").status_code == 200
    assert client.get(f"{world.root}queries/{query.pk}/").status_code == 404
    assert client.post(f"{world.root}queries/{query.pk}/cancel/").status_code == 404
    query.refresh_from_db()
    assert query.status == QueryStatus.QUEUED
