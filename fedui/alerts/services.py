"""What people do to rules and alerts. Each act is in the audit log."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts.evaluation import close_all
from fedui.alerts.kinds import TRAITS, BadRule, Kind, Severity, clean_settings
from fedui.alerts.models import Alert, AlertRule, Webhook
from fedui.audit.services import differences, record
from fedui.errors import NameTaken
from fedui.federations.models import Federation, Role
from fedui.runs import live

MOST_RULES = 100
LONGEST_MUTE = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class RuleContent:
    """All that people set of a rule."""

    name: str
    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)
    severity: Severity | None = None
    """None: that of the kind."""
    enabled: bool = True
    email_roles: Sequence[str] = ()
    webhooks: Sequence[str] = ()
    """Their ids."""
    tell_resolved: bool = True
    every_minutes: int = 5


DEFAULT_RULES = (
    RuleContent("Client is offline", Kind.CLIENT_OFFLINE),
    RuleContent("Run is stalled", Kind.RUN_STALLED),
    RuleContent("Run has failed", Kind.RUN_FAILED),
    RuleContent("Round has missed its quorum", Kind.QUORUM_MISSED),
    RuleContent("Update is suspicious", Kind.UPDATE_FLAGGED, {"rounds": 3}),
    RuleContent("Certificate is about to expire", Kind.CERTIFICATE_EXPIRING),
    RuleContent("Disk is nearly full", Kind.DISK_LOW),
)
"""Of a new federation: on its pages, and to nobody by mail."""


def add_default_rules(federation: Federation) -> None:
    AlertRule.objects.bulk_create(
        AlertRule(
            federation=federation,
            name=content.name,
            kind=content.kind,
            settings=clean_settings(content.kind, content.settings),
            severity=TRAITS[content.kind].severity,
        )
        for content in DEFAULT_RULES
    )


@transaction.atomic
def create_rule(federation: Federation, actor: User, content: RuleContent, *, address: str | None = None) -> AlertRule:
    """Raises `BadRule` or `NameTaken`."""
    lock(federation)
    if federation.alert_rules.count() >= MOST_RULES:
        raise BadRule("name", f"A federation has up to {MOST_RULES} rules.", hint="Change or remove one.")
    rule = AlertRule(federation=federation)
    webhooks = _fill(rule, content)
    rule.save()
    rule.webhooks.set(webhooks)
    record(federation, actor, "alert_rule.created", rule, address=address, after=_described(rule))
    return rule


@transaction.atomic
def change_rule(rule: AlertRule, actor: User, content: RuleContent, *, address: str | None = None) -> AlertRule:
    """Raises `BadRule` or `NameTaken`. With other settings it watches anew."""
    federation = rule.federation
    lock(federation)
    rule = AlertRule.objects.select_for_update().get(pk=rule.pk)
    before, watched = _described(rule), (rule.kind, rule.settings, rule.enabled)
    webhooks = _fill(rule, content)
    now = timezone.now()
    if watched != (rule.kind, rule.settings, rule.enabled):
        close_all(rule, now)
        rule.watches_from, rule.evaluated_at = now, None
    rule.save()
    rule.webhooks.set(webhooks)
    changes = differences(before, _described(rule))
    if changes["before"] or changes["after"]:
        record(federation, actor, "alert_rule.changed", rule, address=address, **changes)
        _tell_pages(federation)
    return rule


@transaction.atomic
def remove_rule(rule: AlertRule, actor: User, *, address: str | None = None) -> None:
    """Its alerts end, and stay in the history."""
    federation, before, name = rule.federation, _described(rule), str(rule)
    close_all(AlertRule.objects.select_for_update().get(pk=rule.pk), timezone.now())
    rule.delete()
    record(federation, actor, "alert_rule.removed", name, address=address, before=before)
    _tell_pages(federation)


@transaction.atomic
def mute_rule(rule: AlertRule, actor: User, until: datetime | None, *, address: str | None = None) -> None:
    """Its alerts are told to nobody until then; None: they are again. Raises `BadRule`."""
    _check_mute(until)
    before = _moment(rule.muted_until)
    rule.muted_until = until
    rule.save(update_fields=["muted_until"])
    _record_mute(rule.federation, actor, "alert_rule", rule, before, until, address)


@transaction.atomic
def acknowledge(alerts: Collection[Alert], actor: User, *, address: str | None = None) -> int:
    """Somebody looks after these: they are told no more, and don't count as new. All are of one federation; those that were
    acknowledged before stay as they are."""
    fresh = Alert.objects.open().filter(pk__in=[alert.pk for alert in alerts], acknowledged_at=None)
    titles = list(fresh.values_list("pk", "title"))
    if not titles:
        return 0
    federation = next(iter(alerts)).federation
    fresh.filter(pk__in=[pk for pk, _ in titles]).update(acknowledged_at=timezone.now(), acknowledged_by=actor)
    subject = titles[0][1] if len(titles) == 1 else f"{len(titles)} alerts"
    shown = dict(titles[:20])
    record(
        federation, actor, "alert.acknowledged", subject, address=address, alerts={str(k): v for k, v in shown.items()}
    )
    _tell_pages(federation)
    return len(titles)


@transaction.atomic
def mute(alert: Alert, actor: User, until: datetime | None, *, address: str | None = None) -> None:
    """Of this subject its rule tells nobody until then; None: it does again. Raises `BadRule`."""
    _check_mute(until)
    before = _moment(alert.muted_until)
    Alert.objects.filter(pk=alert.pk).update(muted_until=until)
    alert.muted_until = until
    _record_mute(alert.federation, actor, "alert", alert.title, before, until, address)


def _record_mute(
    federation: Federation,
    actor: User,
    what: str,
    subject: object,
    before: str | None,
    until: datetime | None,
    address: str | None,
) -> None:
    action = f"{what}.muted" if until else f"{what}.unmuted"
    after = {"muted_until": _moment(until)}
    record(federation, actor, action, subject, address=address, before={"muted_until": before}, after=after)
    _tell_pages(federation)


def _check_mute(until: datetime | None) -> None:
    now = timezone.now()
    if until is not None and not now < until <= now + LONGEST_MUTE:
        raise BadRule("until", f"A time within the next {LONGEST_MUTE.days} days is needed.")


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def lock(federation: Federation) -> None:
    """Changes of a federation's rules wait for each other. Before the row of a rule, if that is locked too."""
    Federation.objects.select_for_update(no_key=True).get(pk=federation.pk)


def _fill(rule: AlertRule, content: RuleContent) -> list[Webhook]:
    """Raises `BadRule` or `NameTaken`. Returns the webhooks that it is to tell."""
    name = " ".join(content.name.split())
    if not name or len(name) > 120 or not name.isprintable():
        raise BadRule("name", "A rule has a name of 1 to 120 characters.")
    if rule.federation.alert_rules.filter(name=name).exclude(pk=rule.pk).exists():
        raise NameTaken(f"There is a rule with the name {name} already.", hint="Choose another one.")
    if not 1 <= content.every_minutes <= 1440:
        raise BadRule("every_minutes", "The time between two messages is 1 to 1,440 minutes.")
    if unknown := set(content.email_roles) - set(Role.values):
        raise BadRule("email_roles", f"There is no role {', '.join(sorted(unknown))}.")
    webhooks = list(rule.federation.webhooks.filter(pk__in=content.webhooks))
    if len(webhooks) != len(set(content.webhooks)):
        raise BadRule("webhooks", "There is no such webhook in this federation.")
    rule.name, rule.kind = name, content.kind
    rule.settings = clean_settings(Kind(content.kind), content.settings)
    rule.severity = TRAITS[Kind(content.kind)].severity if content.severity is None else content.severity
    rule.enabled, rule.tell_resolved = content.enabled, content.tell_resolved
    rule.email_roles = [role for role in Role.values if role in content.email_roles]
    rule.every_minutes = content.every_minutes
    return webhooks


def content_of(rule: AlertRule) -> RuleContent:
    return RuleContent(
        name=rule.name,
        kind=Kind(rule.kind),
        settings=rule.settings,
        severity=Severity(rule.severity),
        enabled=rule.enabled,
        email_roles=tuple(rule.email_roles),
        webhooks=tuple(str(pk) for pk in rule.webhooks.values_list("pk", flat=True)),
        tell_resolved=rule.tell_resolved,
        every_minutes=rule.every_minutes,
    )


def _described(rule: AlertRule) -> dict[str, Any]:
    """For the audit log."""
    described = asdict(content_of(rule))
    return described | {
        "severity": Severity(rule.severity).name.lower(),
        "webhooks": sorted(rule.webhooks.values_list("name", flat=True)),
        "email_roles": list(rule.email_roles),
    }


def _tell_pages(federation: Federation) -> None:
    transaction.on_commit(lambda: async_to_sync(live.alerts_changed)(str(federation.pk)), robust=True)
