"""From what is found to who is told: one open alert, one message, no storm; muted, acknowledged, over."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts import evaluation, search, services, webhooks
from fedui.alerts.evaluation import evaluate, evaluate_all
from fedui.alerts.kinds import Kind
from fedui.alerts.models import Alert, AlertRule, AlertStatus, Delivery
from fedui.alerts.retention import forget_old
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member
from fedui.runs.models import Run, RunStatus
from tests.support.domain import a_client, a_federation, a_member, a_run, a_user

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


@pytest.fixture
def rule(federation: Federation, owner: User) -> AlertRule:
    return offline_rule(federation, owner)


def offline_rule(federation: Federation, owner: User) -> AlertRule:
    federation.alert_rules.all().delete()
    webhook, _ = webhooks.create_webhook(federation, owner, name="ops", url="https://hooks.example.org/")
    content = services.RuleContent("Away", Kind.CLIENT_OFFLINE, webhooks=[str(webhook.pk)])
    return services.create_rule(federation, owner, content)


def away(*clients: Client, minutes: int = 20) -> None:
    then = timezone.now() - minutes * MINUTE
    Client.objects.filter(pk__in=[c.pk for c in clients]).update(last_seen_at=then, lease_expires_at=then + MINUTE)


def back(*clients: Client) -> None:
    away(*clients, minutes=-5)


def time_passes(minutes: int) -> None:
    """For rules and alerts."""
    AlertRule.objects.filter(told_at__isnull=False).update(told_at=timezone.now() - minutes * MINUTE)
    Alert.objects.filter(status=AlertStatus.RESOLVED).update(resolved_at=timezone.now() - minutes * MINUTE)


def told() -> list[dict[str, Any]]:
    return [json.loads(delivery.body) for delivery in Delivery.objects.order_by("created_at")]


def test_one_alert_one_message_and_one_that_it_is_over(federation: Federation, rule: AlertRule) -> None:
    elm = a_client(federation, "elm")
    away(elm)
    for _ in range(3):
        evaluate(federation)
    [alert] = Alert.objects.all()
    assert alert.is_open and alert.client == elm and alert.title == "elm is offline"
    [message] = told()
    assert message["summary"] == "elm is offline – Hearts"
    assert [(one["status"], one["severity"], one["client"]) for one in message["alerts"]] == [
        ("firing", "warning", "elm")
    ]

    back(elm)
    evaluate(federation)
    alert.refresh_from_db()
    assert alert.status == AlertStatus.RESOLVED and alert.resolved_at
    assert len(told()) == 1  # it may come back
    time_passes(6)
    evaluate(federation)
    assert [one["summary"] for one in told()] == ["elm is offline – Hearts", "Over: elm is offline – Hearts"]


def test_a_storm_is_two_messages(federation: Federation, rule: AlertRule) -> None:
    clients = Client.objects.bulk_create(
        Client(federation=federation, name=f"site-{n}", number=100 + n) for n in range(150)
    )
    away(*clients[:1])
    evaluate(federation)
    away(*clients)
    for _ in range(5):
        evaluate(federation)
    assert Alert.objects.open().count() == 150 and len(told()) == 1
    time_passes(6)
    evaluate(federation)
    evaluate(federation)
    first, second = told()
    assert len(first["alerts"]) == 1 and len(second["alerts"]) == 100 and second["alerts_left_out"] == 49
    assert "(and 148 more)" in second["summary"]


def test_what_flaps_is_one_alert_that_is_told_once(federation: Federation, rule: AlertRule) -> None:
    elm = a_client(federation, "elm")
    for _ in range(4):
        away(elm)
        evaluate(federation)
        back(elm)
        evaluate(federation)
    [alert] = Alert.objects.all()
    assert alert.times == 4 and len(told()) == 1
    time_passes(20)
    away(elm)
    evaluate(federation)
    assert Alert.objects.count() == 2


def test_muted_and_acknowledged_alerts_are_told_to_nobody(federation: Federation, owner: User, rule: AlertRule) -> None:
    elm, oak = a_client(federation, "elm"), a_client(federation, "oak")
    services.mute_rule(rule, owner, timezone.now() + 60 * MINUTE)
    away(elm, oak)
    evaluate(federation)
    elms, oaks = (Alert.objects.get(client=client) for client in (elm, oak))
    assert told() == [] and Alert.objects.waiting(timezone.now()).count() == 0
    services.acknowledge([elms], owner)
    services.mute_rule(rule, owner, None)
    services.mute(oaks, owner, timezone.now() + 60 * MINUTE)
    evaluate(federation)
    assert told() == []

    back(oak)
    evaluate(federation)
    time_passes(20)
    away(oak)
    evaluate(federation)  # anew, of a subject that is muted
    assert told() == [] and Alert.objects.filter(client=oak).count() == 2
    Alert.objects.update(muted_until=None)
    evaluate(federation)
    assert [one["alerts"][0]["client"] for one in told()] == ["oak"]
    acts = list(AuditEvent.objects.filter(action__startswith="alert").order_by("id").values_list("action", flat=True))
    assert acts[-4:] == ["alert_rule.muted", "alert.acknowledged", "alert_rule.unmuted", "alert.muted"]


def test_a_run_that_fails_again_is_told_again(federation: Federation, owner: User, rule: AlertRule) -> None:
    services.create_rule(
        federation, owner,
        services.RuleContent("Failed", Kind.RUN_FAILED, webhooks=[str(pk) for pk in rule.webhooks.values_list("pk", flat=True)]),
    )  # fmt: skip
    run = a_run(federation, owner)

    def fail() -> None:
        Run.objects.filter(pk=run.pk).update(status=RunStatus.FAILED, ended_at=timezone.now(), reason="It broke.")
        evaluate(federation)

    fail()
    services.acknowledge(list(Alert.objects.all()), owner)
    time_passes(6)
    fail()
    [alert] = Alert.objects.all()
    assert alert.times == 2 and alert.acknowledged_at is None and len(told()) == 2
    Run.objects.filter(pk=run.pk).update(status=RunStatus.QUEUED)
    evaluate(federation)
    assert Alert.objects.open().count() == 0


def test_what_begins_and_ends_between_two_looks_is_told(federation: Federation, owner: User, rule: AlertRule) -> None:
    services.create_rule(federation, owner, services.RuleContent("Done", Kind.RUN_FINISHED))
    Run.objects.filter(pk=a_run(federation, owner).pk).update(status=RunStatus.COMPLETED, ended_at=timezone.now())
    for _ in range(3):
        evaluate(federation)
    [alert] = Alert.objects.all()
    assert not alert.is_open and alert.told_at


def test_site_admins_hear_of_their_own_clients_alone(federation: Federation, owner: User, rule: AlertRule) -> None:
    elm, oak = a_client(federation, "elm"), a_client(federation, "oak")
    User.objects.create_user("silent", password="x")  # of no federation
    site = a_user("site")
    User.objects.filter(pk=site.pk).update(email="site@example.org")
    User.objects.filter(pk=owner.pk).update(email="owner@example.org")
    add_member(federation, site, Role.SITE_ADMIN, owner, clients=[elm])
    a_member(federation, Role.OPERATOR)  # without an address
    AlertRule.objects.update(email_roles=["owner", "operator", "site_admin"])
    away(elm, oak)
    evaluate(federation)
    by_mail = {d.recipient.email: d for d in Delivery.objects.filter(webhook=None) if d.recipient}
    assert by_mail.keys() == {"site@example.org", "owner@example.org"}
    assert "oak" not in by_mail["site@example.org"].subject + by_mail["site@example.org"].body
    assert "oak is offline" in by_mail["owner@example.org"].body
    membership = federation.memberships.get(user=site)
    assert [alert.client for alert in Alert.objects.visible_to(membership)] == [elm]
    back(elm, oak)
    evaluate(federation)


def test_no_name_breaks_a_header(federation: Federation, rule: AlertRule) -> None:
    Federation.objects.filter(pk=federation.pk).update(name="Hearts\r\nBcc: everybody@example.org")
    away(a_client(federation, "elm"))
    evaluate(Federation.objects.get(pk=federation.pk))
    assert not re.search(r"[\r\n]", Delivery.objects.get().subject)


def test_a_rule_that_makes_no_sense_keeps_no_other_from_being_looked_at(
    federation: Federation, owner: User, rule: AlertRule
) -> None:
    """One that a former release has stored, say."""
    AlertRule.objects.filter(pk=rule.pk).update(settings={})
    good = services.create_rule(federation, owner, services.RuleContent("Away too", Kind.CLIENT_OFFLINE))
    broken = a_federation("a-first", a_user("somebody"))
    broken.alert_rules.update(settings={"no": "longer"})
    away(a_client(federation, "hosp-1"))

    evaluate_all()

    assert [alert.rule for alert in Alert.objects.all()] == [good]


def test_changed_and_removed_rules_end_their_alerts(federation: Federation, owner: User, rule: AlertRule) -> None:
    away(a_client(federation, "elm"))
    evaluate(federation)
    changed = services.RuleContent("Away", Kind.CLIENT_OFFLINE, {"minutes": 60})
    rule = services.change_rule(rule, owner, changed)
    assert Alert.objects.open().count() == 0
    evaluate(federation)
    assert Alert.objects.open().count() == 0
    services.change_rule(rule, owner, services.RuleContent("Away", Kind.CLIENT_OFFLINE, {"minutes": 5}))
    Alert.objects.all().delete()
    evaluate(federation)
    services.remove_rule(AlertRule.objects.get(pk=rule.pk), owner)
    [alert] = Alert.objects.all()
    assert alert.rule is None and not alert.is_open
    Alert.objects.update(resolved_at=timezone.now() - timedelta(days=91))
    forget_old()
    assert not Alert.objects.exists()


def test_a_finding_that_is_older_than_what_is_written_changes_nothing(federation: Federation, rule: AlertRule) -> None:
    elm = a_client(federation, "elm")
    away(elm)
    now = timezone.now()
    old = search.find(Kind.CLIENT_OFFLINE, federation, rule.settings, now - timedelta(days=1), now)
    back(elm)
    evaluate(federation)
    assert evaluation._apply(rule, old, now) is False and not Alert.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_open_one_alert_and_write_one_message() -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    offline_rule(federation, owner)
    away(*(a_client(federation, name) for name in ("elm", "oak")))
    start = Barrier(3)

    def work() -> None:
        try:
            for _ in range(3):
                start.wait(20)
                evaluate(federation)
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as workers:
        for one in [workers.submit(work) for _ in range(3)]:
            one.result()
    assert Alert.objects.open().count() == 2 and Delivery.objects.count() == 1
