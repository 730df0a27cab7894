"""Who is told of alerts, and how often: what has gathered goes out together, at most once in so many minutes of a rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Q

from fedui.alerts import messages
from fedui.alerts.models import Alert, AlertRule, AlertStatus, Delivery
from fedui.federations.models import Membership

if TYPE_CHECKING:
    from django.db.models import QuerySet

HINT_EXPIRES_SECONDS = 5
SETTLED = timedelta(minutes=2)
"""What has ended so long ago is told to be over; sooner it may come back."""


def tell(rule: AlertRule, now: datetime) -> None:
    """Write the messages of `rule` that are due. Its row is locked, so that one worker does."""
    if rule.is_muted or (rule.told_at and rule.told_at > now - timedelta(minutes=rule.every_minutes)):
        return
    fired, ended = list(_untold(rule, now)), list(_ended(rule, now))
    if not fired and not ended:
        return
    deliveries = [*_by_webhook(rule, fired, ended), *_by_email(rule, fired, ended)]
    Delivery.objects.bulk_create(deliveries)
    rule.alerts.filter(pk__in=[alert.pk for alert in fired]).update(told_at=now)
    rule.alerts.filter(pk__in=[alert.pk for alert in ended]).update(end_told_at=now)
    if deliveries:
        AlertRule.objects.filter(pk=rule.pk).update(told_at=now)
        transaction.on_commit(hint, robust=True)


def hint() -> None:
    """There is something to deliver. Beat says so again if this is lost."""
    from fedui.alerts.tasks import deliver

    deliver.apply_async(expires=HINT_EXPIRES_SECONDS, retry=False)


def _untold(rule: AlertRule, now: datetime) -> QuerySet[Alert]:
    quiet = Q(muted_until__gt=now) | Q(acknowledged_at__isnull=False)
    return _related(rule).filter(told_at=None).exclude(quiet).order_by("-severity", "fired_at", "pk")


def _ended(rule: AlertRule, now: datetime) -> QuerySet[Alert]:
    if not rule.tell_resolved:
        return Alert.objects.none()
    over = _related(rule).filter(status=AlertStatus.RESOLVED, resolved_at__lte=now - SETTLED)
    quiet = Q(muted_until__gt=now)
    return over.filter(told_at__isnull=False, end_told_at=None).exclude(quiet).order_by("resolved_at", "pk")


def _related(rule: AlertRule) -> QuerySet[Alert]:
    return rule.alerts.select_related("client", "federation")


def _by_webhook(rule: AlertRule, fired: Sequence[Alert], ended: Sequence[Alert]) -> list[Delivery]:
    subject = messages.subject(rule.federation, fired, ended)
    body = messages.document(rule, fired, ended)
    return [
        Delivery(federation=rule.federation, rule=rule, webhook=webhook, subject=subject, body=body)
        for webhook in rule.webhooks.filter(enabled=True)
    ]


def _by_email(rule: AlertRule, fired: Sequence[Alert], ended: Sequence[Alert]) -> list[Delivery]:
    """One each, so that nobody learns who else gets it; a site admin of their own clients alone."""
    members = Membership.objects.filter(federation=rule.federation_id, role__in=rule.email_roles)
    deliveries = []
    for member in members.filter(user__is_active=True).exclude(user__email="").select_related("user"):
        own = _own(member, fired), _own(member, ended)
        if any(own):
            subject, body = messages.subject(rule.federation, *own), messages.text(rule, *own)
            deliveries.append(
                Delivery(federation=rule.federation, rule=rule, recipient=member.user, subject=subject, body=body)
            )
    return deliveries


def _own(member: Membership, alerts: Sequence[Alert]) -> list[Alert]:
    if not member.sees_own_clients_only:
        return list(alerts)
    own = set(member.clients.values_list("pk", flat=True))
    return [alert for alert in alerts if alert.client_id in own]
