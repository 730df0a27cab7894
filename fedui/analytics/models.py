from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from aggregator.core.analytics import QueryConfig
from fedui.catalog.models import App
from fedui.federations.models import Federation
from fedui.transitions import StatefulModel


class QueryStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"
    COMPLETED = "completed", "Completed"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class QueryQuerySet(models.QuerySet["Query"]):
    def active(self) -> QueryQuerySet:
        return self.filter(status__in=[QueryStatus.QUEUED, QueryStatus.RUNNING])

    def without_owner(self, now: datetime) -> QueryQuerySet:
        """Active queries that no aggregator holds: never taken up, or the holder's lease has expired."""
        return self.active().filter(Q(lease_expires_at=None) | Q(lease_expires_at__lte=now))

    def without_results(self) -> QueryQuerySet:
        """For lists: of a result no more than how many clients and values it tells of. None where there is none."""
        return self.defer("result").annotate(num_clients=F("result__clients"), num_values=F("result__values"))


class Query(StatefulModel):
    """Aggregates of one column over the clients of a federation. The row holds its state machine and its lease, as a run's does."""

    TRANSITIONS = {
        QueryStatus.QUEUED: frozenset({QueryStatus.RUNNING, QueryStatus.CANCELLED, QueryStatus.FAILED}),
        QueryStatus.RUNNING: frozenset(
            {QueryStatus.QUEUED, QueryStatus.COMPLETED, QueryStatus.FAILED, QueryStatus.CANCELLED}
        ),
        QueryStatus.COMPLETED: frozenset(),
        QueryStatus.FAILED: frozenset(),
        QueryStatus.CANCELLED: frozenset(),
    }

    federation = models.ForeignKey(Federation, on_delete=models.CASCADE, related_name="queries")
    app = models.ForeignKey(App, on_delete=models.PROTECT, related_name="queries")
    config = models.JSONField(help_text="What is asked: aggregator.core.analytics.QueryConfig.")
    status = models.CharField(max_length=16, choices=QueryStatus, default=QueryStatus.QUEUED)
    reason = models.TextField(blank=True, help_text="Why the query ended without a result.")
    result = models.JSONField(null=True, help_text="The aggregate; no client's share of it.")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=120, blank=True)
    lease_fencing = models.PositiveIntegerField(default=0)
    lease_expires_at = models.DateTimeField(null=True)

    objects = QueryQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "queries"
        indexes = [models.Index(fields=["federation", "-id"], name="queries_by_federation")]

    def __str__(self) -> str:
        return f"Query #{self.pk} of {self.config['column']}"

    @property
    def parsed(self) -> QueryConfig:
        return QueryConfig.model_validate(self.config)

    @property
    def duration_seconds(self) -> float | None:
        if not self.started_at:
            return None
        return ((self.ended_at or timezone.now()) - self.started_at).total_seconds()
