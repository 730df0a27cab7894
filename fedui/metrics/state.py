"""What the database says of the whole installation, read when it is asked for. Web processes alone tell it: it must not be added up."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Q
from django.utils import timezone
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from fedui.alerts.kinds import Severity
from fedui.alerts.models import Alert, Delivery, DeliveryStatus
from fedui.clients.models import LATE_AFTER, Client, ClientStatus
from fedui.runs.models import DRIVEN, Run, RunStatus


class InstallationState(Collector):
    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield self._runs()
        yield self._leases()
        yield self._clients()
        yield self._alerts()
        waiting = Delivery.objects.filter(status__in=[DeliveryStatus.PENDING, DeliveryStatus.SENDING]).count()
        yield GaugeMetricFamily("fedui_deliveries_waiting", "Messages of alerts not delivered yet.", value=waiting)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is asked of the database before somebody wants to know."""
        return iter(())

    def _runs(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("fedui_runs", "Runs by status; those queued are the queue.", labels=["status"])
        counts = dict(Run.objects.order_by().values_list("status").annotate(n=Count("pk")))
        for status in RunStatus.values:
            family.add_metric([status], counts.get(status, 0))
        return family

    def _leases(self) -> GaugeMetricFamily:
        driven = Run.objects.filter(status__in=DRIVEN)
        counts = driven.aggregate(
            held=Count("pk", filter=Q(lease_expires_at__gt=timezone.now())),
            expired=Count("pk", filter=Q(lease_expires_at__lte=timezone.now())),
            free=Count("pk", filter=Q(lease_expires_at=None)),
        )
        family = GaugeMetricFamily("fedui_leases", "Leases of runs in progress.", labels=["state"])
        for state, number in counts.items():
            family.add_metric([state], number)
        return family

    def _clients(self) -> GaugeMetricFamily:
        now = timezone.now()
        online = Q(connected=True, last_seen_at__gte=now - LATE_AFTER)
        there = Q(lease_expires_at__gt=now)
        counts = Client.objects.filter(status=ClientStatus.ACTIVE).aggregate(
            online=Count("pk", filter=online & there),
            late=Count("pk", filter=there & ~online),
            offline=Count("pk", filter=Q(lease_expires_at=None) | Q(lease_expires_at__lte=now)),
        )
        family = GaugeMetricFamily("fedui_clients", "Active clients by presence.", labels=["presence"])
        for presence, number in counts.items():
            family.add_metric([presence], number)
        return family

    def _alerts(self) -> GaugeMetricFamily:
        counts = dict(Alert.objects.open().order_by().values_list("severity").annotate(n=Count("pk")))
        family = GaugeMetricFamily("fedui_alerts_open", "Open alerts.", labels=["severity"])
        for severity in Severity:
            family.add_metric([severity.name.lower()], counts.get(severity, 0))
        return family
