"""The words and the documents that leave: e-mails as text, webhooks as JSON. One message tells of many alerts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.urls import reverse

from fedui.alerts.kinds import Severity
from fedui.alerts.models import Alert, AlertRule
from fedui.federations.models import Federation

MOST_IN_TEXT = 20
MOST_IN_DOCUMENT = 100


def subject(federation: Federation, fired: Sequence[Alert], ended: Sequence[Alert]) -> str:
    """What has happened, as far as a line holds it."""
    first = (fired or ended)[0]
    over = "" if fired else "Over: "
    more = len(fired) + len(ended) - 1
    title = first.title if len(first.title) <= 120 else f"{first.title[:119]}…"
    text = f"{over}{title}{f' (and {more} more)' if more else ''} – {federation.name}"
    return " ".join(text.split())[:200]  # never a line break: it is a header of an e-mail


def text(rule: AlertRule, fired: Sequence[Alert], ended: Sequence[Alert]) -> str:
    paragraphs = [_paragraph(alert, "") for alert in fired[:MOST_IN_TEXT]]
    paragraphs += [_paragraph(alert, "Over: ") for alert in ended[: MOST_IN_TEXT - len(paragraphs)]]
    if left_out := len(fired) + len(ended) - len(paragraphs):
        paragraphs.append(f"And {left_out} more.")
    federation = rule.federation
    everything = f"All alerts of {federation.name}: {address_of(federation)}"
    why = (
        f"You get this by the rule “{rule.name}” ({severity_of(rule)}), at most once in {rule.every_minutes} min. "
        "Alerts can be acknowledged and muted there."
    )
    return "\n\n".join([*paragraphs, everything, why])


def document(rule: AlertRule, fired: Sequence[Alert], ended: Sequence[Alert]) -> str:
    """The body of a webhook."""
    federation = rule.federation
    told = [_described(alert) for alert in (*fired, *ended)]
    content = {
        "type": "alerts",
        "federation": {"name": federation.name, "slug": federation.slug},
        "rule": {"id": rule.pk, "name": rule.name, "kind": rule.kind},
        "summary": subject(federation, fired, ended),
        "alerts": told[:MOST_IN_DOCUMENT],
        "alerts_left_out": max(0, len(told) - MOST_IN_DOCUMENT),
        "url": address_of(federation),
    }
    return json.dumps(content, ensure_ascii=False)


def test_document(federation: Federation) -> str:
    content = {
        "type": "test",
        "federation": {"name": federation.name, "slug": federation.slug},
        "summary": f"A test of FedUI’s webhooks – {federation.name}",
        "alerts": [],
        "url": address_of(federation),
    }
    return json.dumps(content, ensure_ascii=False)


def address_of(federation: Federation) -> str:
    return f"{settings.PUBLIC_URL}{reverse('federation:alerts', args=[federation.slug])}"


def severity_of(rule: AlertRule) -> str:
    return Severity(rule.severity).label.lower()


def _paragraph(alert: Alert, prefix: str) -> str:
    since = f"Since {alert.fired_at:%-d %b %Y, %H:%M} UTC"
    until = f", until {alert.resolved_at:%-d %b %Y, %H:%M} UTC" if alert.resolved_at else ""
    lines = [f"{prefix}{alert.title}", *([alert.detail] if alert.detail else []), f"{since}{until}."]
    if alert.run_id:
        place = reverse("federation:run", args=[alert.federation.slug, alert.run_id])
        lines.append(f"{settings.PUBLIC_URL}{place}")
    return "\n".join(lines)


def _described(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.pk,
        "kind": alert.kind,
        "severity": Severity(alert.severity).name.lower(),
        "status": alert.status,
        "title": alert.title,
        "detail": alert.detail,
        "subject": alert.subject,
        "client": alert.client.name if alert.client else None,
        "run": alert.run_id,
        "fired_at": alert.fired_at.isoformat(),
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "times": alert.times,
    }
