"""Entries by who, what, where and when, as the audit page asks for them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.db.models import Q, QuerySet

from fedui.audit.models import AuditEvent, Via

KINDS = {
    "run": "Runs", "round": "Rounds", "query": "Queries", "client": "Clients", "certificate": "Certificates", "token": "Tokens",
    "key": "API keys", "app": "Apps", "strategy": "Strategies", "model": "Models", "share": "Shares", "view": "Saved views",
    "alert": "Alerts", "alert_rule": "Alert rules", "webhook": "Webhooks", "delivery": "Deliveries",
    "member": "Members", "invitation": "Invitations", "account": "Accounts",
    "federation": "Federation", "authority": "Authority", "audit": "Audit log",
}  # fmt: skip


class AuditSearch(forms.Form):
    """Every field is optional, and what makes no sense is left out of the search."""

    q = forms.CharField(required=False, max_length=200)
    who = forms.CharField(required=False, max_length=150)
    kind = forms.ChoiceField(required=False, choices=[("", "Any action"), *KINDS.items()])
    via = forms.ChoiceField(required=False, choices=[("", "Any way in"), *Via.choices])
    since = forms.DateField(required=False)
    until = forms.DateField(required=False)

    def found(self, entries: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        self.is_valid()
        wanted = self.cleaned_data
        for word in wanted.get("q", "").split():
            entries = entries.filter(
                Q(action__icontains=word) | Q(subject__icontains=word) | Q(address__icontains=word)
            )
        if who := wanted.get("who"):
            entries = entries.filter(actor_name__icontains=who)
        if kind := wanted.get("kind"):
            entries = entries.filter(action__startswith=f"{kind}.")
        if via := wanted.get("via"):
            entries = entries.filter(via=via)
        if since := wanted.get("since"):
            entries = entries.filter(at__gte=_midnight(since))
        if (until := wanted.get("until")) and until < date.max:
            entries = entries.filter(at__lt=_midnight(until + timedelta(days=1)))
        return entries

    @property
    def narrows(self) -> bool:
        return any(self.cleaned_data.values())

    def values(self) -> dict[str, Any]:
        return {name: self[name].value() or "" for name in self.fields}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
