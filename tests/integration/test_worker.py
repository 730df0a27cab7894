"""The engine in a worker, over the database."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from aggregator.core.analytics import QueryConfig, Statistic
from fedui.analytics.models import Query, QueryStatus
from fedui.runs.adapters import LEASE
from fedui.worker import EngineHost
from fedui.workers import post
from fedui.workers.models import Worker
from fedui.workers.post import Me
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


def test_of_two_workers_one_serves_and_the_other_takes_its_place(settings: Any) -> None:
    settings.GRPC_BIND, settings.GRPC_ADDRESS = "127.0.0.1:0", "one.example.org:50051"
    first = EngineHost()
    settings.GRPC_ADDRESS = "two.example.org:50051"
    second = EngineHost()
    first.start()
    second.start()
    try:
        until(lambda: Worker.objects.count() == 2, "Both workers' being known")
        assert _serving() == ["one.example.org:50051"]
        assert second.run(1) is False, "one that stands by drives nothing"
        first.stop()
        until(lambda: _serving() == ["two.example.org:50051"], "The second worker's taking over")
        with transaction.atomic():  # as if the second had been frozen for longer than its lease
            Worker.objects.filter(serving=True).update(serving=False)
            post.stand(third := Me("127.0.0.1:1", "three.example.org:1"))
            Worker.objects.filter(key=third.key).update(expires_at=timezone.now() + timedelta(hours=1))
        until(lambda: second._engine is None, "Standing by of a worker whose place is taken")
    finally:
        second.stop()
    assert _serving() == ["three.example.org:1"]


def _serving() -> list[str]:
    return list(Worker.objects.filter(serving=True).values_list("address", flat=True))
