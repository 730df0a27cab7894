"""What rules find becomes alerts: open while it lasts, one a rule and subject, whichever worker finds it first.

Searching takes no lock. What was found is written under the rule's lock, unless another worker has written what it found later.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from asgiref.sync import async_to_sync
from django.db import InterfaceError, OperationalError, transaction
from django.utils import timezone

from fedui.alerts.kinds import Kind
from fedui.alerts.models import Alert, AlertRule, AlertStatus
from fedui.alerts.notify import tell
from fedui.alerts.occurrences import LOOK_BACK, Occurrence
from fedui.alerts.search import find
from fedui.federations.models import Federation
from fedui.runs import live

logger = logging.getLogger(__name__)

REOPENS_WITHIN = timedelta(minutes=15)
"""What comes back so soon is the same alert, of which nobody is told again."""
LATE_NEWS = timedelta(minutes=10)
"""How much later than it happened something may be committed, and still be found."""


def evaluate_all() -> None:
    for federation in Federation.objects.filter(alert_rules__isnull=False).distinct():
        evaluate(federation)


def evaluate(federation: Federation, kinds: Collection[str] = Kind.values) -> None:
    """Bring the federation's alerts of these kinds up to date, write the messages that are due, and tell the pages."""
    changed = False
    for rule in federation.alert_rules.filter(enabled=True, kind__in=kinds):
        try:
            changed |= _look(rule, federation)
        except (OperationalError, InterfaceError):  # the database is away: the next look is for all
            raise
        except Exception:  # the other rules, and other federations, are looked at all the same
            logger.exception(
                "An alert rule could not be looked at", extra={"rule": rule.pk, "federation": federation.slug}
            )
    if changed:
        async_to_sync(live.alerts_changed)(str(federation.pk))


def _look(rule: AlertRule, federation: Federation) -> bool:
    now = timezone.now()
    return _apply(rule, find(Kind(rule.kind), federation, rule.settings, now - LOOK_BACK, now), now)


@transaction.atomic
def _apply(rule: AlertRule, found: Sequence[Occurrence], now: datetime) -> bool:
    """Whether an alert has changed."""
    locked = AlertRule.objects.select_for_update().filter(pk=rule.pk, enabled=True).first()
    if locked is None or (locked.evaluated_at and locked.evaluated_at >= now) or locked.settings != rule.settings:
        return False
    book = _Book(locked, now)
    by_subject = sorted(found, key=lambda one: (one.subject, one.at))
    for subject, occurrences in groupby(by_subject, key=lambda one: one.subject):
        book.enter(subject, list(occurrences))
    book.close_others()
    AlertRule.objects.filter(pk=locked.pk).update(evaluated_at=now)
    tell(locked, now)
    return book.changed


def close_all(rule: AlertRule, now: datetime) -> None:
    """The rule watches no longer."""
    rule.alerts.open().update(status=AlertStatus.RESOLVED, resolved_at=now, end_told_at=now)


class _Book:
    """The alerts of one rule, while what was found is entered."""

    def __init__(self, rule: AlertRule, now: datetime) -> None:
        self._rule, self._now = rule, now
        self._open = {alert.subject: alert for alert in rule.alerts.open()}
        self._lasting: set[str] = set()
        self.changed = False

    def enter(self, subject: str, occurrences: Sequence[Occurrence]) -> None:
        """All of one subject, the oldest first."""
        for occurrence in occurrences:
            if occurrence.lasts_at(self._now):
                if self._is_news(occurrence) or subject in self._open:
                    self._lasting.add(subject)
                    self._keep_open(occurrence)
            elif self._is_recent(occurrence) and not self._is_known(occurrence):
                self._note_ended(occurrence)

    def close_others(self) -> None:
        for subject, alert in self._open.items():
            if subject not in self._lasting:
                alert.status, alert.resolved_at = AlertStatus.RESOLVED, self._now
                if alert.told_at is None and (alert.is_muted or alert.acknowledged_at or self._rule.is_muted):
                    alert.told_at = alert.end_told_at = self._now  # it has come and gone while nobody wanted to hear
                alert.save(update_fields=["status", "resolved_at", "told_at", "end_told_at"])
                self.changed = True

    def _is_news(self, occurrence: Occurrence) -> bool:
        return self._rule.traits.lasts or occurrence.at >= self._rule.watches_from

    def _is_recent(self, occurrence: Occurrence) -> bool:
        looked = self._rule.evaluated_at or self._rule.watches_from
        return occurrence.at >= max(self._rule.watches_from, looked - LATE_NEWS)

    def _is_known(self, occurrence: Occurrence) -> bool:
        return self._rule.alerts.filter(subject=occurrence.subject, fired_at__gte=occurrence.at).exists()

    def _keep_open(self, occurrence: Occurrence) -> None:
        alert = self._open.get(occurrence.subject)
        if alert is None:
            self._open[occurrence.subject] = self._reopened(occurrence) or self._opened(occurrence)
            self.changed = True
        elif not self._rule.traits.lasts and occurrence.at > alert.fired_at:
            self._begin_anew(alert, occurrence)

    def _begin_anew(self, alert: Alert, occurrence: Occurrence) -> None:
        """Another event of the same subject: it is told again."""
        alert.title, alert.detail, alert.run = occurrence.title, occurrence.detail, occurrence.run
        alert.fired_at, alert.times = occurrence.at, alert.times + 1
        alert.told_at = alert.acknowledged_at = alert.acknowledged_by = None
        alert.save()
        self.changed = True

    def _reopened(self, occurrence: Occurrence) -> Alert | None:
        last = self._rule.alerts.filter(subject=occurrence.subject).order_by("-pk").first()
        if last is None or not last.resolved_at or last.resolved_at < self._now - REOPENS_WITHIN:
            return None
        if not self._rule.traits.lasts and occurrence.at > last.fired_at:
            return None
        last.status, last.resolved_at, last.end_told_at, last.times = AlertStatus.FIRING, None, None, last.times + 1
        last.detail = occurrence.detail
        last.save()
        return last

    def _opened(self, occurrence: Occurrence) -> Alert:
        return self._create(occurrence, status=AlertStatus.FIRING)

    def _note_ended(self, occurrence: Occurrence) -> None:
        """It has begun and ended between two looks."""
        self._create(occurrence, status=AlertStatus.RESOLVED, resolved_at=occurrence.until, end_told_at=self._now)
        self.changed = True

    def _create(self, occurrence: Occurrence, **more: object) -> Alert:
        muted = self._rule.alerts.filter(subject=occurrence.subject, muted_until__gt=self._now).first()
        return Alert.objects.create(
            federation_id=self._rule.federation_id,
            rule=self._rule,
            kind=self._rule.kind,
            severity=self._rule.severity,
            subject=occurrence.subject,
            title=occurrence.title[:200],
            detail=occurrence.detail,
            client=occurrence.client,
            run=occurrence.run,
            fired_at=occurrence.at,
            opened_at=self._now,
            muted_until=muted.muted_until if muted else None,
            **more,
        )
