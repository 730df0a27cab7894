"""Celery tasks around queries. Like those around runs: a task is a hint, the truth is the row and its lease."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from fedui.analytics.models import Query
from fedui.runs.tasks import HINT_EXPIRES_SECONDS


@shared_task(name="aggregation.host_query")
def host_query(query_id: int) -> None:
    """Have this worker's engine drive the query. Does nothing if it has ended or another worker drives it."""
    from fedui.worker import engine_host  # the engine and gRPC: of no use to the web process, which imports this module

    engine_host().query(query_id)


@shared_task(name="analytics.dispatch_ownerless")
def dispatch_ownerless_queries() -> int:
    """Send every active query that no worker holds to the workers again."""
    query_ids = list(Query.objects.without_owner(timezone.now()).values_list("pk", flat=True))
    for query_id in query_ids:
        host_query.apply_async((query_id,), expires=HINT_EXPIRES_SECONDS)
    return len(query_ids)
