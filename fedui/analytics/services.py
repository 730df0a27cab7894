"""What changes queries."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from aggregator.core.analytics import QueryConfig
from fedui.accounts.models import User
from fedui.analytics.columns import open_columns
from fedui.analytics.models import Query, QueryStatus
from fedui.analytics.tasks import host_query
from fedui.audit.services import record
from fedui.catalog.models import App
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Federation
from fedui.runs import live


class QueryRefused(DomainError):
    """A query that nobody could answer."""

    code = ErrorCode.QUERY_REFUSED


@transaction.atomic
def create_query(
    federation: Federation, actor: User, *, app: App, config: QueryConfig, address: str | None = None
) -> Query:
    """A queued query, which an aggregator takes up as soon as there is one. Raises `QueryRefused`."""
    if app.federation_id != federation.pk:
        raise QueryRefused(f"{app} belongs to another federation.", hint=f"Choose an app of {federation}.")
    if not any(column.app == app and column.name == config.column for column in open_columns(federation)):
        raise QueryRefused(
            f"No client opens column {config.column!r} of {app} to queries.",
            hint="Choose another, or ask the data owners.",
        )
    said = config.model_dump(mode="json")
    query = Query.objects.create(federation=federation, app=app, config=said, created_by=actor)
    record(federation, actor, "query.created", query, address=address, query=query.pk, app=str(app), **said)
    # Robust: the query exists, and the watchdog dispatches it should the broker be away now.
    transaction.on_commit(lambda: host_query.delay(query.pk), robust=True)
    transaction.on_commit(lambda: live.query_changed(str(federation.pk), query.pk), robust=True)
    return query


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
