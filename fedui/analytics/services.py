"""What changes queries."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from aggregator.core.analytics import QueryConfig
from fedui.accounts.models import User
from fedui.analytics.columns import num_opening
from fedui.analytics.models import Query, QueryStatus
from fedui.analytics.tasks import host_query
from fedui.audit.services import record
from fedui.catalog.models import App
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Federation
from fedui.runs import live

MAX_ACTIVE = 4
"""Queries of one federation at a time: while clients answer they don't train."""


class QueryRefused(DomainError):
    """A query that could have no result, or one too many."""

    code = ErrorCode.QUERY_REFUSED


@transaction.atomic
def create_query(
    federation: Federation, actor: User, *, app: App, config: QueryConfig, address: str | None = None
) -> Query:
    """A queued query, which an aggregator takes up as soon as there is one. Raises `QueryRefused`."""
    if app.federation_id != federation.pk:
        raise QueryRefused(f"{app} belongs to another federation.", hint=f"Choose an app of {federation}.")
    _check_clients(app, config)
    _check_number(federation)
    said = config.model_dump(mode="json")
    query = Query.objects.create(federation=federation, app=app, config=said, created_by=actor)
    record(federation, actor, "query.created", query, address=address, query=query.pk, app=str(app), **said)
    # Robust: the query exists, and the watchdog dispatches it should the broker be away now.
    transaction.on_commit(lambda: host_query.delay(query.pk), robust=True)
    transaction.on_commit(lambda: live.query_changed(str(federation.pk), query.pk), robust=True)
    return query


def _check_clients(app: App, config: QueryConfig) -> None:
    found = num_opening(app, config)
    if found >= config.min_clients:
        return
    where = f"{found:,} client{'' if found == 1 else 's'}{' with these labels' if config.labels else ''}"
    raise QueryRefused(
        f"Column {config.column!r} of {app} is open at {where}; the query needs {config.min_clients:,} answers.",
        hint="Ask for fewer, choose another column, or ask the data owners.",
    )


def _check_number(federation: Federation) -> None:
    Federation.objects.select_for_update(no_key=True).get(
        pk=federation.pk
    )  # two that are created at once count each other
    if Query.objects.active().filter(federation=federation).count() >= MAX_ACTIVE:
        raise QueryRefused(
            f"{MAX_ACTIVE} queries of {federation} are under way.", hint="Wait until one has ended, or cancel one."
        )


@transaction.atomic
def cancel_query(query: Query, actor: User, address: str | None = None) -> None:
    """End the query without a result. Raises `IllegalTransition` if it has ended."""
    query.transition(
        QueryStatus.CANCELLED,
        reason=f"Cancelled by {actor.get_username()}.",
        ended_at=timezone.now(),
        lease_owner="",
        lease_fencing=F("lease_fencing") + 1,  # who drives it can write nothing more
        lease_expires_at=None,
    )
    record(query.federation, actor, "query.cancelled", query, address=address, query=query.pk)
    transaction.on_commit(lambda: live.query_changed(str(query.federation_id), query.pk), robust=True)
