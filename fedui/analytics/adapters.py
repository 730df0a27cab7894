"""The engine's query store over the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels.db import database_sync_to_async
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Coalesce
from django.utils import timezone

from aggregator.ports import LeaseLost, QueryLease, QueryOutcome, QuerySpec
from fedui.analytics.models import Query, QueryStatus
from fedui.audit.origin import ENGINE
from fedui.audit.services import record
from fedui.runs import live
from fedui.runs.adapters import LEASE


class DatabaseQueryStore:
    """Implements `aggregator.ports.QueryStore`. Every write checks the lease's fencing number in its own transaction."""

    async def take_up(self, query_id: int, owner: str) -> tuple[QuerySpec, QueryLease] | None:
        taken: tuple[QuerySpec, QueryLease] | None = await database_sync_to_async(_take_up)(query_id, owner)
        if taken:
            await live.queries_changed(taken[0].federation_id)
        return taken

    async def renew(self, lease: QueryLease) -> None:
        await database_sync_to_async(_renew)(lease)

    async def release(self, lease: QueryLease) -> None:
        await database_sync_to_async(_release)(lease)

    async def finish(
        self, lease: QueryLease, outcome: QueryOutcome, reason: str, result: Mapping[str, Any] | None
    ) -> None:
        await live.queries_changed(await database_sync_to_async(_finish)(lease, outcome, reason, result))


def _fence(lease: QueryLease) -> Query:
    """The query, locked for the rest of the transaction, if the lease is the newest and still held."""
    held = Query.objects.active().filter(pk=lease.query_id, lease_fencing=lease.fencing, lease_owner=lease.owner)
    query = held.select_for_update().first()
    if query is None:
        raise LeaseLost
    return query


@transaction.atomic
def _take_up(query_id: int, owner: str) -> tuple[QuerySpec, QueryLease] | None:
    now = timezone.now()
    taken = (
        Query.objects.without_owner(now)
        .filter(pk=query_id)
        .update(
            lease_owner=owner,
            lease_fencing=F("lease_fencing") + 1,
            lease_expires_at=now + LEASE,
            started_at=Coalesce("started_at", now),
            status=QueryStatus.RUNNING,
        )
    )
    if not taken:
        return None
    query = Query.objects.select_related("app").get(pk=query_id)
    spec = QuerySpec(query.pk, str(query.federation_id), query.app.name, query.app.version, query.parsed)
    action = "query.started" if query.lease_fencing == 1 else "query.taken_up_again"
    record(query.federation, ENGINE, action, query, query=query.pk, worker=owner)
    return spec, QueryLease(query.pk, owner, query.lease_fencing)


@transaction.atomic
def _renew(lease: QueryLease) -> None:
    Query.objects.filter(pk=_fence(lease).pk).update(lease_expires_at=timezone.now() + LEASE)


@transaction.atomic
def _release(lease: QueryLease) -> None:
    _fence(lease).transition(QueryStatus.QUEUED, lease_owner="", lease_expires_at=None)


@transaction.atomic
def _finish(lease: QueryLease, outcome: QueryOutcome, reason: str, result: Mapping[str, Any] | None) -> str:
    query = _fence(lease)
    query.transition(
        QueryStatus(outcome.value),
        reason=reason,
        result=dict(result) if result is not None else None,
        ended_at=timezone.now(),
        lease_owner="",
        lease_expires_at=None,
    )
    record(query.federation, ENGINE, "query.ended", query, query=query.pk, outcome=outcome.value, reason=reason)
    return str(query.federation_id)
