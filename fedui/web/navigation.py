"""The sections of a federation, as the side navigation lists them. What a role can't open isn't there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.urls import ResolverMatch, reverse
from django.utils import timezone

from fedui.alerts.models import Alert
from fedui.clients.models import Client, ClientStatus
from fedui.federations.models import Act, Federation, Membership


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    """Name of its URL and of its icon."""
    label: str
    key: str
    """The key that opens it after G."""
    parts: frozenset[str] = frozenset()
    """Names of further URLs that belong to it."""
    act: Act = Act.READ
    begins_group: bool = False


SECTIONS = (
    Section("overview", "Overview", "o"),
    Section("runs", "Runs", "r", frozenset({"run", "run-new", "runs-compare", "run-promote", "run-shares"})),
    Section("clients", "Clients", "c", frozenset({"client", "readiness"}), Act.SEE_CLIENTS),
    Section("alerts", "Alerts", "l", act=Act.SEE_CLIENTS),
    Section("strategies", "Strategies", "s", frozenset({"strategy", "strategy-new"})),
    Section("apps", "Apps", "a"),
    Section("models", "Models", "m", frozenset({"model", "model-version"})),
    Section("queries", "Queries", "q", frozenset({"query", "query-new"})),
    Section("tokens", "Tokens", "t", frozenset({"token-new"}), Act.MANAGE_TOKENS, begins_group=True),
    Section("audit", "Audit", "u", frozenset(), Act.READ_AUDIT),
    Section("settings", "Settings", "e", frozenset({"keys", "rule-new", "rule", "webhook"})),
)


def sections(federation: Federation, membership: Membership, match: ResolverMatch | None) -> list[dict[str, Any]]:
    here = match.url_name if match else None
    counts = {
        "runs": federation.runs.unfinished().count(),
        "clients": Client.objects.visible_to(membership).exclude(status=ClientStatus.REVOKED).count(),
        "alerts": Alert.objects.visible_to(membership).waiting(timezone.now()).count(),
    }
    return [
        {
            "section": section,
            "url": reverse(f"federation:{section.name}", args=[federation.slug]),
            "current": here == section.name or here in section.parts,
            "count": counts.get(section.name, 0),
        }
        for section in SECTIONS
        if membership.may(section.act)
    ]
