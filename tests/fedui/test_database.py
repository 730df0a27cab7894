"""What a process that freezes in the middle of a transaction does to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from channels.db import database_sync_to_async
from django.db import InternalError, connection, connections, transaction

from fedui.federations.models import Federation
from fedui.patience import patiently
from tests.support.domain import a_federation, a_user

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite knows no idle transactions"),
]


@pytest.fixture
def short(settings: Any) -> Iterator[None]:
    settings.IDLE_IN_TRANSACTION_SECONDS = 0.5
    connection.close()  # the next one is made with the setting
    yield
    connection.close()


def test_it_loses_its_locks_and_its_work(short: None) -> None:
    federation = a_federation("hearts", a_user("owner"))
    renamed = threading.Event()

    def rename() -> None:
        Federation.objects.filter(pk=federation.pk).update(name="Renamed")
        connection.close()
        renamed.set()

    with pytest.raises(InternalError, match="idle-in-transaction timeout"), transaction.atomic():
        Federation.objects.select_for_update().get(pk=federation.pk)
        threading.Thread(target=rename, daemon=True).start()
        assert renamed.wait(30)
        Federation.objects.filter(pk=federation.pk).update(name="Frozen")
    federation.refresh_from_db()
    assert federation.name == "Renamed"


async def test_what_is_done_patiently_is_done_again(short: None) -> None:
    tries = []

    def rename() -> None:
        with transaction.atomic():
            federation = Federation.objects.select_for_update().get(slug="hearts")
            tries.append(federation)
            if len(tries) == 1:
                _await_the_end_of_this_connection()
            Federation.objects.filter(pk=federation.pk).update(name=f"After try {len(tries)}")

    await database_sync_to_async(connections.close_all)()  # of the thread that works: an earlier test's
    await database_sync_to_async(lambda: a_federation("hearts", a_user("owner")))()
    await patiently(rename)
    assert (await Federation.objects.aget()).name == "After try 2"
    await database_sync_to_async(connections.close_all)()


def _await_the_end_of_this_connection() -> None:
    """By another connection, as this one must stay idle."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    given = connection.get_connection_params()
    address = {name: given[name] for name in ("dbname", "host", "port", "user", "password") if name in given}
    with psycopg.connect(**address, autocommit=True) as other:
        deadline = time.monotonic() + 30
        while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            assert time.monotonic() < deadline, "The connection was not ended"
