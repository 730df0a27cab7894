"""Alerts, rules and webhooks in the pages: who sees and does what, and what a form says."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client as Browser
from django.utils import timezone

from fedui.alerts.evaluation import evaluate
from fedui.alerts.models import Alert, AlertRule, Delivery, Webhook
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client
from fedui.federations.models import Role
from fedui.federations.services import add_member
from tests.support.domain import a_member, a_user
from tests.support.population import World, populate

pytestmark = pytest.mark.django_db
RULE = {
    "kind": "client_offline",
    "name": "Away",
    "severity": "1",
    "every_minutes": "5",
    "enabled": "on",
    "setting_minutes": "30",
}


@pytest.fixture
def world() -> World:
    world = populate()
    then = timezone.now() - timedelta(hours=1)
    Client.objects.update(last_seen_at=then, lease_expires_at=then)
    evaluate(world.federation)
    return world


def signed_in(user: object) -> Browser:
    browser = Browser()
    browser.force_login(user)  # type: ignore[arg-type]
    return browser


def test_an_operator_acknowledges_and_mutes(world: World) -> None:
    browser = signed_in(a_member(world.federation, Role.OPERATOR))
    page = browser.get(world.root + "alerts/").content.decode()
    assert "hosp-elm is offline" in page and 'data-count="2"' in page
    alert = Alert.objects.get(client=world.client)
    browser.post(f"{world.root}alerts/{alert.pk}/acknowledge/")
    browser.post(f"{world.root}alerts/{alert.pk}/mute/", {"hours": "8"})
    assert 'data-count="1"' in browser.get(world.root + "alerts/count/").content.decode()
    page = browser.get(world.root + "alerts/").content.decode()
    assert "looks after it" in page and "muted, ends in 8 h" in page
    browser.post(f"{world.root}alerts/acknowledge/")
    assert not Alert.objects.waiting(timezone.now()).exists()
    assert AuditEvent.objects.filter(action="alert.acknowledged").count() == 2
    Client.objects.update(last_seen_at=timezone.now(), lease_expires_at=timezone.now() + timedelta(minutes=1))
    evaluate(world.federation)
    assert "No open alerts" in browser.get(world.root + "alerts/").content.decode()
    assert (
        "hosp-elm is offline" in browser.get(world.root + "alerts/?show=history&kind=client_offline").content.decode()
    )


def test_a_site_admin_sees_the_alerts_of_their_clients(world: World) -> None:
    site = a_user("site")
    add_member(world.federation, site, Role.SITE_ADMIN, world.owner, clients=[world.client])
    browser = signed_in(site)
    page = browser.get(world.root + "alerts/").content.decode()
    assert "hosp-elm is offline" in page and "hemlock" not in page and 'data-count="1"' in page
    other = Alert.objects.exclude(client=world.client).get()
    assert browser.post(f"{world.root}alerts/{other.pk}/acknowledge/").status_code == 403


@pytest.mark.parametrize(
    ("role", "rules", "hooks"), [(Role.OWNER, 302, 200), (Role.OPERATOR, 302, 403), (Role.RESEARCHER, 403, 403), (Role.AUDITOR, 403, 403)]
)  # fmt: skip
def test_who_may_set_rules_and_webhooks(world: World, role: Role, rules: int, hooks: int) -> None:
    user = world.owner if role == Role.OWNER else a_member(world.federation, role)
    browser = signed_in(user)
    assert browser.post(world.root + "settings/rules/new/", RULE).status_code == rules
    hook = {"name": "ops", "url": "https://hooks.example.org/x"}
    assert browser.post(world.root + "settings/webhooks/new/", hook).status_code == hooks
    assert browser.get(world.root + "alerts/").status_code == 200
    assert signed_in(world.stranger).post(world.root + "settings/rules/new/", RULE).status_code == 404


def test_a_rule_is_made_previewed_changed_and_removed(world: World) -> None:
    browser = signed_in(world.owner)
    preview = browser.post(world.root + "settings/rules/preview/", RULE).content.decode()
    assert re.search(r"would have fired <b[^>]*>\d+ times?</b>", preview)
    assert (
        "from 1 to 10080"
        in browser.post(world.root + "settings/rules/preview/", RULE | {"setting_minutes": "0"}).content.decode()
    )
    wrong = browser.post(world.root + "settings/rules/new/", RULE | {"setting_minutes": "soon"})
    assert wrong.status_code == 422 and "Offline for is a number" in wrong.content.decode()
    taken = browser.post(world.root + "settings/rules/new/", RULE | {"name": "Client is offline"})
    assert taken.status_code == 422 and "already" in taken.content.decode()

    browser.post(world.root + "settings/rules/new/", RULE | {"email_roles": ["owner"]})
    rule = AlertRule.objects.get(name="Away")
    assert (rule.settings, rule.email_roles, rule.tell_resolved) == ({"minutes": 30}, ["owner"], False)
    assert 'value="30"' in browser.get(f"{world.root}settings/rules/{rule.pk}/").content.decode()
    browser.post(f"{world.root}settings/rules/{rule.pk}/switch/")
    browser.post(f"{world.root}settings/rules/{rule.pk}/mute/", {"hours": "1"})
    assert not AlertRule.objects.get(pk=rule.pk).enabled
    browser.post(f"{world.root}settings/rules/{rule.pk}/remove/")
    assert not AlertRule.objects.filter(pk=rule.pk).exists()
    acts = AuditEvent.objects.filter(action__startswith="alert_rule").order_by("id").values_list("action", flat=True)
    assert list(acts) == [f"alert_rule.{act}" for act in ("created", "changed", "muted", "removed")]


def test_a_webhook_shows_its_secret_once_and_its_deliveries(world: World) -> None:
    browser = signed_in(world.owner)
    made = browser.post(world.root + "settings/webhooks/new/", {"name": "ops", "url": "https://hooks.example.org/x"})
    secret = re.search(r"whsec_[\w+/=]+", made.content.decode())
    assert secret and made["Cache-Control"]
    refused = browser.post(world.root + "settings/webhooks/new/", {"name": "in", "url": "https://10.0.0.1/"})
    assert "private or reserved" in refused.content.decode()
    webhook = Webhook.objects.get()
    place = f"{world.root}settings/webhooks/{webhook.pk}/"
    browser.post(place + "test/")
    Delivery.objects.update(
        status="failed", ended_at=timezone.now(), log=[{"ok": False, "error": "<b>no</b>", "at": "", "milliseconds": 1}]
    )
    page = browser.get(place).content.decode()
    assert "&lt;b&gt;no" in page and secret[0] not in page
    browser.post(f"{place}deliveries/{Delivery.objects.get().pk}/again/")
    assert Delivery.objects.count() == 2
    assert secret[0] not in browser.post(place + "rotate/").content.decode()
    browser.post(place + "remove/", {"confirm": "other"})
    assert Webhook.objects.exists()
    browser.post(place + "remove/", {"confirm": "ops"})
    assert not Webhook.objects.exists()
