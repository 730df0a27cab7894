"""What an API key may be made for. A scope opens acts that the member's role allows anyway, and no others."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import models

from fedui.federations.models import Act


class Scope(models.TextChoices):
    READ = "read", "Read all that the member may see, but not the audit log"
    RUNS = "runs", "Start runs and give them orders, ask queries"
    STRATEGIES = "strategies", "Define strategies"
    MODELS = "models", "Promote models and move them between stages"
    REPORTS = "reports", "Share reports of runs by link"
    CLIENTS = "clients", "Admit, suspend, label and revoke clients"
    TOKENS = "tokens", "Make and revoke enrollment tokens"
    MEMBERS = "members", "Invite members and change the federation"
    SETTINGS = "settings", "Change settings and what is kept"
    ALERTS = "alerts", "Set alert rules and webhooks, acknowledge and mute alerts"
    AUDIT = "audit", "Read and export the audit log"
    KEYS = "keys", "Make API keys that may no more than this one, and revoke them"


SCOPE_OF: Mapping[Act, Scope] = {
    Act.READ: Scope.READ,
    Act.SEE_CLIENTS: Scope.READ,
    Act.REVOKE_CLIENTS: Scope.CLIENTS,
    Act.MANAGE_CLIENTS: Scope.CLIENTS,
    Act.MANAGE_TOKENS: Scope.TOKENS,
    Act.MANAGE_STRATEGIES: Scope.STRATEGIES,
    Act.MANAGE_RUNS: Scope.RUNS,
    Act.PROMOTE_MODELS: Scope.MODELS,
    Act.RELEASE_MODELS: Scope.MODELS,
    Act.SHARE_REPORTS: Scope.REPORTS,
    Act.MANAGE_SETTINGS: Scope.SETTINGS,
    Act.MANAGE_ALERTS: Scope.ALERTS,
    Act.MANAGE_WEBHOOKS: Scope.ALERTS,
    Act.READ_AUDIT: Scope.AUDIT,
    Act.MANAGE_MEMBERS: Scope.MEMBERS,
    Act.HAVE_KEYS: Scope.KEYS,
}
