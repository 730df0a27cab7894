"""What is no longer worth keeping of alerts and deliveries."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from fedui.alerts.models import Alert, AlertStatus, Delivery, DeliveryStatus

ALERTS_KEPT = timedelta(days=90)
DELIVERIES_KEPT = timedelta(days=30)


def forget_old() -> None:
    now = timezone.now()
    Alert.objects.filter(status=AlertStatus.RESOLVED, resolved_at__lt=now - ALERTS_KEPT).delete()
    ended = [DeliveryStatus.DELIVERED, DeliveryStatus.FAILED]
    Delivery.objects.filter(status__in=ended, ended_at__lt=now - DELIVERIES_KEPT).delete()
