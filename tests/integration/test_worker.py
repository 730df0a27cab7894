"""The engine in a worker, over the database."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db.models import F

from aggregator.core.analytics import QueryConfig, Statistic
from fedui.analytics.models import Query, QueryStatus
from fedui.runs.adapters import LEASE
from fedui.worker import EngineHost
from tests.e2e.platform import until
from tests.support.domain import a_federation, a_user, an_app

pytestmark = pytest.mark.django_db(transaction=True)


def test_queries_that_wait_hold_no_thread_and_are_given_back(settings: Any) -> None:
    settings.GRPC_BIND = "127.0.0.1:0"
    federation = a_federation("hearts", a_user("owner"))
    config = QueryConfig(column="age", statistics=(Statistic.MEAN,), deadline_seconds=3_600).model_dump(mode="json")
    queries = [Query.objects.create(federation=federation, app=an_app(federation), config=config).pk for _ in range(3)]
    host = EngineHost()
    host.start()
    try:
        hints = [threading.Thread(target=host.query, args=(query,), daemon=True) for query in queries]
        for hint in hints:
            hint.start()
        for hint in hints:
            hint.join(10)
        assert not any(hint.is_alive() for hint in hints), "a query waits an hour for its clients; no thread does"
        renewed = Query.objects.filter(status=QueryStatus.RUNNING, lease_expires_at__gt=F("started_at") + LEASE)
        until(lambda: renewed.count() == 3, "The renewal of all leases, by which whoever drives a query begins,")
    finally:
        host.stop()
    assert set(Query.objects.values_list("status", "lease_owner")) == {(QueryStatus.QUEUED, "")}
