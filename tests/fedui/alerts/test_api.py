"""Alerts, rules, webhooks and deliveries over REST: one pass through each, and who may."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts.evaluation import evaluate
from fedui.alerts.models import Alert, AlertRule, Delivery
from fedui.clients.models import Client
from fedui.federations.models import Federation, Role
from tests.support.api import as_user
from tests.support.domain import a_client, a_member

pytestmark = pytest.mark.django_db
PLACE = "federations/hearts/"


def test_rules_and_alerts(federation: Federation, owner: User, stranger: User) -> None:
    caller = as_user(owner)
    wanted = {"name": "Away", "kind": "client_offline", "settings": {"minutes": 5}, "email_roles": ["owner"]}
    preview = caller.post(PLACE + "alert-rules/preview", {"kind": "client_offline", "settings": {"minutes": 5}})
    assert preview.json() == {"times": 0, "newest": [], "caveat": ""}
    made = caller.post(PLACE + "alert-rules", wanted)
    assert made.status_code == 201 and made.json()["severity"] == "warning"
    rule = made.json()["id"]
    wrong = caller.post(PLACE + "alert-rules", wanted | {"name": "Other", "settings": {"minutes": 0}})
    assert wrong.status_code == 400 and wrong.json()["field"] == "minutes"
    assert caller.post(PLACE + "alert-rules", wanted).json()["code"] == "name_taken"

    a_client(federation, "elm")
    Client.objects.update(last_seen_at=timezone.now() - timedelta(minutes=9), lease_expires_at=timezone.now())
    evaluate(federation)
    [alert] = caller.get(PLACE + "alerts?status=firing").json()["results"]
    assert alert["title"] == "elm is offline" and alert["rule"] == rule
    seen = caller.post(f"{PLACE}alerts/{alert['id']}/acknowledge").json()
    assert seen["acknowledged_by"] == "owner"
    assert caller.post(f"{PLACE}alerts/{alert['id']}/mute", {"hours": 2}).json()["muted_until"]

    etag = caller.get(f"{PLACE}alert-rules/{rule}")["ETag"]
    assert caller.call("put", f"{PLACE}alert-rules/{rule}", wanted | {"enabled": False}).status_code == 428
    changed = caller.call("put", f"{PLACE}alert-rules/{rule}", wanted | {"enabled": False}, if_match=etag)
    assert changed.json()["enabled"] is False and not Alert.objects.open().exists()
    assert caller.call("delete", f"{PLACE}alert-rules/{rule}", if_match="*").status_code == 204
    assert not AlertRule.objects.filter(pk=rule).exists()

    researcher = as_user(a_member(federation, Role.RESEARCHER))
    assert researcher.get(PLACE + "alerts").status_code == researcher.get(PLACE + "alert-rules").status_code == 200
    assert researcher.post(PLACE + "alert-rules", wanted).status_code == 403
    assert researcher.get(PLACE + "webhooks").status_code == 403
    assert as_user(stranger).get(PLACE + "alerts").status_code == 404


def test_webhooks_and_deliveries(federation: Federation, owner: User) -> None:
    caller = as_user(owner)
    refused = caller.post(PLACE + "webhooks", {"name": "in", "url": "https://192.168.0.1/"})
    assert refused.status_code == 400 and "private" in refused.json()["detail"]
    made = caller.post(PLACE + "webhooks", {"name": "ops", "url": "https://hooks.example.org/"}).json()
    place = f"{PLACE}webhooks/{made['id']}"
    assert made["secret"].startswith("whsec_")
    assert "secret" not in caller.get(place).json()
    assert caller.post(place + "/rotate").json()["secret"] != made["secret"]
    delivery = caller.post(place + "/test").json()
    again = f"{PLACE}deliveries/{delivery['id']}/redeliver"
    assert caller.post(again).json()["code"] == "illegal_transition"
    Delivery.objects.update(status="failed", log=[{"ok": False, "at": "", "milliseconds": 3, "error": "no"}])
    assert caller.get(f"{PLACE}deliveries/{delivery['id']}").json()["attempts"][0]["error"] == "no"
    assert caller.post(again).json()["redelivery_of"] == delivery["id"]
    listed = caller.get(f"{PLACE}deliveries?webhook={made['id']}&status=pending").json()["results"]
    assert len(listed) == 1
    assert caller.call("delete", place, if_match="*").status_code == 204
    assert not Delivery.objects.exists()
