"""Two federations that have one of everything, and everybody who may come to them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.test import Client as Browser

from aggregator.checkpoints import files_of
from aggregator.core.analytics import QueryConfig
from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.alerts.kinds import Kind, Severity
from fedui.alerts.webhooks import create_webhook, send_test
from fedui.analytics.models import Query, QueryStatus
from fedui.audit.models import AuditEvent
from fedui.bookmarks.models import SavedView
from fedui.clients.admission import Applicant, enrol
from fedui.clients.agent_wheel import agent_wheel
from fedui.clients.models import Client
from fedui.clients.services import create_token
from fedui.federations.invitations import invite
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member
from fedui.keys.scopes import Scope
from fedui.keys.services import create_key
from fedui.registry.services import promote
from fedui.reports.models import Naming
from fedui.reports.shares import share
from fedui.runs.models import ModelVersion, Run
from fedui.runs.store import model_files
from fedui.strategies.services import create_strategy
from tests.support.api import as_user, with_key
from tests.support.domain import NOW, a_client, a_csr, a_federation, a_run, a_user, an_app, with_rounds

DAY = timedelta(1)


@dataclass
class Place:
    """A federation with one of everything, and what stands for it in addresses."""

    federation: Federation
    named: dict[str, str]
    other_client: Client

    def address(self, pattern: str, **instead: str) -> str:
        named = self.named | instead

        def fill(found: re.Match[str]) -> str:
            noun, name = found["noun"], found["name"]
            return noun + found["slash"] + named.get(f"{noun}/{name}", named.get(name, "1"))

        return re.sub(r"(?P<noun>[\w-]*)(?P<slash>/?)<(?P<name>\w+)>", fill, pattern)


@dataclass
class World:
    own: Place
    foreign: Place
    users: dict[str, User]
    browsers: dict[str, Browser] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    """Callers by the owner's API keys, each of one scope."""


def a_world() -> World:
    owner, other = a_user("owner"), a_user("other_member")
    own, foreign = a_place("hearts", owner), a_place("lungs", other)
    users = {"owner": owner, "other_member": other, "stranger": a_user("nobodys")}
    users["installation_admin"] = User.objects.create_superuser("root", password="secret")
    for role in (Role.OPERATOR, Role.RESEARCHER, Role.AUDITOR, Role.SITE_ADMIN):
        users[role.value] = user = a_user(role.value)
        mine = [Client.objects.get(pk=own.named["client_id"])] if role == Role.SITE_ADMIN else ()
        add_member(own.federation, user, role, owner, clients=mine)
    browsers = {name: as_user(user).browser for name, user in users.items()} | {"anonymous": Browser()}
    membership = own.federation.memberships.get(user=owner)
    keys = {
        scope.value: with_key(create_key(membership, name=scope.value, scopes=[scope], lifetime=DAY)[1])
        for scope in Scope
    }
    own.named["user_id"] = foreign.named["user_id"] = str(users["stranger"].pk)
    return World(own, foreign, users, browsers, keys)


def a_place(slug: str, owner: User) -> Place:
    federation = a_federation(slug, owner)
    strategy = create_strategy(federation, owner, name=f"of-{slug}", config=StrategyConfig())
    clients = [a_client(federation, f"{slug}-{number}") for number in (1, 2)]
    run = a_run(federation, owner)
    with_rounds(run, clients, 2)
    a_model(run, 1)
    member = add_member(federation, a_user(f"member-of-{slug}"), Role.RESEARCHER, owner)
    key, _ = create_key(federation.memberships.get(user=owner), name="k", scopes=[Scope.READ], lifetime=DAY)
    named = {
        "slug": slug,
        "strategies/name": strategy.name,
        "versions/number": "1",
        "audit/number": str(AuditEvent.objects.filter(federation=federation).latest("pk").pk),
        "client_id": str(clients[0].pk),
        "run_id": str(run.pk),
        "round_number": "1",
        "app_id": str(an_app(federation).pk),
        "query_id": str(a_query(run, owner).pk),
        "member_id": str(member.pk),
        "key_id": str(key.pk),
        "token_id": str(create_token(federation, owner)[0].pk),
        "admission_id": str(someone_waiting(federation, owner)),
        "kind": "pause",
        "act": "unlock",
        "filename": agent_wheel().filename,
        "provider_id": "none",
        "uidb36": "1",
        "key": "k",
    }
    named |= registered(run, owner) | watched(federation, clients[0], owner)
    invitation, link = invite(federation, owner, Role.AUDITOR)
    named |= {"invitation_id": str(invitation.pk), "secret": link.rstrip("/").rpartition("/")[2]}
    view = SavedView.objects.create(federation=federation, owner=owner, name="v", page="runs", path="runs/")
    return Place(federation, named | {"view_id": str(view.pk)}, clients[1])


def registered(run: Run, owner: User) -> dict[str, str]:
    """The model under a name, and a shared report of the run."""
    name = f"of-{run.federation.slug}"
    promote(run.models.get(), owner, name)
    made, link = share(run, owner, naming=Naming.NUMBERS, lifetime=DAY)
    secret = link.rstrip("/").rpartition("/")[2]
    return {"models/name": name, "number": "1", "share_id": str(made.pk), "reports/secret": secret}


def watched(federation: Federation, client: Client, owner: User) -> dict[str, str]:
    """An alert, its rule, and a webhook that was told."""
    rule = federation.alert_rules.create(
        name="watched", kind=Kind.CLIENT_OFFLINE, severity=Severity.WARNING, settings={"minutes": 15}
    )
    alert = federation.alerts.create(
        rule=rule, kind=rule.kind, severity=rule.severity, subject=f"client:{client.pk}", title="t", client=client,
        fired_at=NOW,
    )  # fmt: skip
    webhook, _ = create_webhook(federation, owner, name="w", url="https://receiver.example/hook")
    delivery = send_test(webhook, owner)
    return {
        "rule_id": str(rule.pk), "alert_id": str(alert.pk), "webhook_id": str(webhook.pk), "delivery_id": str(delivery.pk),
    }  # fmt: skip


def a_model(run: Run, round_number: int) -> None:
    files = files_of(f"runs/{run.pk}/{round_number}.safetensors")
    content = b"weights"
    for name, data in zip(files, (content, b"", b'{"run": 1}'), strict=False):
        model_files().write(name, data)
    digest = hashlib.sha256(content).hexdigest()
    ModelVersion.objects.create(run=run, round_number=round_number, key=files[0], sha256=digest, size=len(content))


def a_query(run: Run, owner: User) -> Query:
    said = QueryConfig(column="age", statistics=("mean",)).model_dump(mode="json")
    figures = {"edges": [0.0, 1.0], "counts": [20], "below": 0, "above": 0}
    result = {
        "clients": 2,
        "values": 20,
        "passes": 1,
        "figures": {"mean": 0.5},
        "histogram": figures,
        "quantiles": [],
        "left_out": [],
    }
    return Query.objects.create(
        federation=run.federation, app=run.app, config=said, created_by=owner, status=QueryStatus.COMPLETED, result=result
    )  # fmt: skip


def someone_waiting(federation: Federation, owner: User) -> Any:
    _, text = create_token(federation, owner, requires_approval=True)
    return enrol(text, a_csr(), Applicant("waiting", "host", "0.1.0", "Linux", "192.0.2.1")).pk
