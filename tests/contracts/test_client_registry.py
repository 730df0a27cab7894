"""What the database keeps of agents that connect, beat and go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from aggregator.ports import AgentInfo, AppOffer, DataCard, Gpu, Machine, Sign
from fedui.catalog.models import App
from fedui.clients import presence
from fedui.clients.history import KEPT, MOST_CONNECTIONS, VitalsHistory, forget_old
from fedui.clients.models import LATE_AFTER, OFFLINE_AFTER, Client, Connection, Ending, VitalsSample
from fedui.clients.registry import DatabaseClientRegistry
from protos.convert import Scalars
from tests.contracts.test_run_store import SIGNATURE, in_database

pytestmark = pytest.mark.django_db(transaction=True)

OFFER = AppOffer("toy", "1", "numpy", SIGNATURE)
CARD = DataCard("digits", "1.0", "scans", 120, 64, (("benign", 100),), 10)


class Site:
    """One client's agent, as a worker's registry hears of it."""

    def __init__(self, registry: DatabaseClientRegistry, client_id: str) -> None:
        self.client_id = client_id
        self._connected, self._disconnected = async_to_sync(registry.connected), async_to_sync(registry.disconnected)
        self._seen = async_to_sync(registry.seen)

    def connect(self, session: str, **info: Any) -> None:
        self._connected(
            self.client_id, session, AgentInfo("0.1.0", "Linux", [OFFER], info.pop("properties", {}), 1, **info)
        )

    def disconnect(self, session: str, *, left: bool = False) -> None:
        self._disconnected(self.client_id, session, left=left)

    def beat(self, session: str, age: float = 0.0, **vitals: float) -> bool:
        return self.client_id in self._seen([Sign(self.client_id, session, age, vitals)])

    def pass_time(self, gone: timedelta) -> None:
        """As if so much time had passed since the last write."""
        row = self.row
        assert row.last_seen_at
        assert row.lease_expires_at
        Client.objects.filter(pk=row.pk).update(
            last_seen_at=row.last_seen_at - gone, lease_expires_at=row.lease_expires_at - gone
        )

    @property
    def presence(self) -> str:
        return str(self.row.presence)

    @property
    def row(self) -> Client:
        return Client.objects.get(pk=self.client_id)


@pytest.fixture
def site() -> Site:
    return Site(DatabaseClientRegistry(), in_database().clients[0])


def test_what_an_agent_says_of_itself_is_kept(site: Site) -> None:
    properties: Scalars = {"cores": 8, "key": b"\x01", "site": "north"}
    machine = Machine(16, 64_000, 1_000_000, (Gpu("A10", 24_000),))
    site.connect("s", properties=properties, machine=machine, cards=(CARD,))
    row = site.row
    assert (row.agent_version, row.platform, row.protocol_minor) == ("0.1.0", "Linux", 1)
    assert row.properties == {"cores": 8, "key": "01", "site": "north"}
    assert (row.machine["cores"], row.machine["gpus"][0]["name"]) == (16, "A10")
    assert (row.cards[0]["examples"], row.cards[0]["labels"]) == (120, [["benign", 100]])


def test_a_knock_without_apps_leaves_what_is_known(site: Site) -> None:
    """As that of `fedagent doctor`."""
    site.connect("s", machine=Machine(16), cards=(CARD,))
    async_to_sync(DatabaseClientRegistry().connected)(site.client_id, "t", AgentInfo("0.1.0", "Linux", [], {}, 1))
    assert (site.row.machine["cores"], len(site.row.cards), len(site.row.apps)) == (16, 1, 1)


def test_an_agent_that_invents_apps_fills_no_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MOST_APPS", 3)
    offers = [AppOffer(f"invented-{i}", "1", "numpy", SIGNATURE) for i in range(5)]
    offers.append(AppOffer("toy", "1", "numpy", SIGNATURE))
    async_to_sync(DatabaseClientRegistry().connected)(site.client_id, "s", AgentInfo("0.1.0", "Linux", offers, {}, 1))
    assert App.objects.count() == 3
    full = "The federation knows 3 apps already, and this is none of them"
    assert [app["problem"] for app in site.row.apps] == ["", "", full, full, full, ""]


def test_presence_follows_the_lease(site: Site) -> None:
    assert site.presence == "offline"
    site.connect("s")
    assert site.beat("s", cpu=0.5)
    assert (site.presence, site.row.vitals) == ("online", {"cpu": 0.5})
    site.pass_time(LATE_AFTER)
    assert site.presence == "late"
    site.pass_time(OFFLINE_AFTER - LATE_AFTER)
    assert site.presence == "offline"
    assert site.beat("s")
    assert site.presence == "online"


def test_a_sign_is_as_old_as_the_worker_says_and_by_the_databases_clock(site: Site) -> None:
    site.connect("s")
    site.beat("s", age=LATE_AFTER.total_seconds() + 1)
    assert site.presence == "late"
    site.beat("s", age=OFFLINE_AFTER.total_seconds() + 1)
    assert site.presence == "offline"
    site.beat("s", age=0.25)
    seen, lease = site.row.last_seen_at, site.row.lease_expires_at
    assert seen
    assert lease
    assert abs((timezone.now() - seen).total_seconds() - 0.25) < 5
    assert lease - seen == pytest.approx(OFFLINE_AFTER, abs=timedelta(milliseconds=2))


def test_an_agent_that_is_lost_is_late_and_one_that_leaves_is_offline(site: Site) -> None:
    site.connect("s")
    site.disconnect("s")
    assert site.presence == "late"
    site.connect("t")
    site.disconnect("t", left=True)
    assert site.presence == "offline"
    assert [c.ending for c in Connection.objects.order_by("opened_at", "id")] == [Ending.LOST, Ending.LEFT]


def test_a_stream_that_has_moved_to_another_worker_can_not_be_undone_by_the_first(site: Site) -> None:
    """The first worker doesn't know yet: what it says of its dead stream counts for nothing."""
    other = Site(DatabaseClientRegistry(), site.client_id)
    site.connect("first")
    other.connect("second")
    assert not site.beat("first", cpu=1.0)
    site.disconnect("first")
    assert (site.row.connected, site.presence, site.row.vitals) == (True, "online", {})
    assert other.beat("second", cpu=0.25)
    assert site.row.vitals == {"cpu": 0.25}
    assert Connection.objects.get(session_id="first").ending == Ending.MOVED


def test_the_clients_of_a_worker_that_died_are_not_connected_for_ever(site: Site) -> None:
    site.connect("s")
    assert presence.expire_leases() == set()
    site.pass_time(OFFLINE_AFTER)
    assert presence.expire_leases() == {str(site.row.federation_id)}
    assert not site.row.connected
    ended = Connection.objects.get(session_id="s")
    assert (ended.ending, ended.closed_at) == (Ending.EXPIRED, site.row.lease_expires_at)
    assert site.beat("s"), "the worker was only cut off"
    assert site.presence == "online"


def test_a_data_card_that_changes_is_taken_and_one_that_is_withdrawn_is_gone(site: Site) -> None:
    site.connect("s")
    seen = async_to_sync(DatabaseClientRegistry().seen)
    seen([Sign(site.client_id, "s", 0.0, {}, (CARD,))])
    assert site.row.cards[0]["examples"] == 120
    seen([Sign(site.client_id, "s", 0.0, {})])
    assert site.row.cards
    seen([Sign(site.client_id, "s", 0.0, {}, ())])
    assert site.row.cards == []


@contextmanager
def _written() -> Iterator[list[str]]:
    written: list[str] = []
    with CaptureQueriesContext(connection) as queries:
        yield written
    written += [q["sql"].strip().split()[0] for q in queries if q["sql"].strip()[:6] in ("UPDATE", "INSERT", "DELETE")]


def test_heartbeats_of_many_are_one_write(site: Site) -> None:
    federation = site.row.federation
    clients = Client.objects.bulk_create(
        Client(federation=federation, name=f"site-{n}", number=100 + n, session_id="s") for n in range(1500)
    )
    signs = [Sign(str(client.pk), "s", 0.0, {"cpu": n / 1500}) for n, client in enumerate(clients)]
    with _written() as written:
        assert len(presence.write_signs(signs)) == 1500
    assert written == ["UPDATE"]
    assert Client.objects.online().count() == 1500
    assert Client.objects.get(name="site-750").vitals == {"cpu": 0.5}


def test_the_history_is_means_written_when_a_span_is_over(site: Site) -> None:
    start = timezone.now().replace(minute=0, second=0, microsecond=0)
    history = VitalsHistory()
    with _written() as written:
        for second in range(0, 60, 5):
            history.add([Sign(site.client_id, "s", 0.0, {"cpu": second / 60})], start + timedelta(seconds=second))
    assert written == []
    with _written() as written:
        history.add(
            [Sign("00000000-0000-4000-8000-000000000000", "s", 0.0, {"cpu": 1.0})], start + timedelta(minutes=1)
        )
    assert written == ["INSERT"]
    history.add([], start + timedelta(minutes=15))
    samples = {sample.seconds: sample for sample in VitalsSample.objects.filter(client=site.row)}
    assert set(samples) == set(KEPT)
    assert samples[60].at == start
    assert samples[60].values["cpu"] == pytest.approx(27.5 / 60)


def test_what_is_old_is_forgotten(site: Site) -> None:
    now = timezone.now()
    for seconds, kept in KEPT.items():
        for age in (timedelta(), kept + timedelta(minutes=1)):
            VitalsSample.objects.create(client=site.row, seconds=seconds, at=now - age, values={})
    Connection.objects.bulk_create(
        Connection(client=site.row, session_id=str(n), opened_at=now - timedelta(seconds=n), closed_at=now)
        for n in range(MOST_CONNECTIONS + 5)
    )
    Connection.objects.create(client=site.row, session_id="old", opened_at=now, closed_at=now - timedelta(days=31))
    forget_old()
    assert VitalsSample.objects.count() == len(KEPT)
    assert Connection.objects.count() == MOST_CONNECTIONS
    assert not Connection.objects.filter(session_id=str(MOST_CONNECTIONS)).exists()
