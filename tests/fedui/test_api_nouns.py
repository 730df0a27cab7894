"""The same of every noun of the API, from one table: pages, ETags, sparse fields, strangers, roles, idempotency, numbers of queries."""

from __future__ import annotations

import itertools
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.urls import URLResolver, get_resolver, resolve
from django.utils import timezone

from aggregator.core.analytics import QueryConfig
from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.alerts.kinds import Kind, Severity
from fedui.alerts.models import Alert, AlertRule, Delivery, DeliveryStatus, Webhook
from fedui.alerts.services import RuleContent, create_rule
from fedui.alerts.webhooks import create_webhook
from fedui.analytics.models import Query
from fedui.api.models import StoredAnswer
from fedui.api.once import forget_expired
from fedui.api.views import ApiView, ListView
from fedui.audit.models import AuditEvent
from fedui.audit.services import record
from fedui.catalog.models import App
from fedui.clients.admission import Applicant, enrol
from fedui.clients.models import Admission, Certificate, Client, Connection, EnrolmentToken
from fedui.clients.services import create_token, suspend_client
from fedui.federations.invitations import invite
from fedui.federations.models import Federation, Invitation, Membership, Role
from fedui.federations.services import add_member
from fedui.keys.models import ApiKey
from fedui.keys.scopes import Scope
from fedui.keys.services import create_key
from fedui.registry.models import RegisteredModel, RegisteredVersion, Stage
from fedui.registry.services import promote
from fedui.reports.models import Naming, Share
from fedui.reports.shares import share
from fedui.runs.models import Metric, ModelVersion, Participation, Round, Run, RunCommand
from fedui.strategies.models import Strategy, StrategyVersion
from tests.support.api import Caller, as_user
from tests.support.domain import NOW, a_client, a_csr, a_member, a_run, a_user

ROLES: set[Role] = {role for role in Role if role != Role.OWNER}
READERS = ROLES - {Role.SITE_ADMIN}


@dataclass
class World:
    """A federation that has one of everything."""

    federation: Federation
    owner: User
    client: Client
    run: Run

    def path(self, pattern: str, **more: Any) -> str:
        return pattern.format(
            f=f"federations/{self.federation.slug}", client=f"federations/{self.federation.slug}/clients/{self.client.pk}",
            run=f"runs/{self.run.pk}", **more,
        )  # fmt: skip


@pytest.fixture
def world(federation: Federation, owner: User) -> World:
    RegisteredModel.objects.create(federation=federation, name="grown", created_by=owner)
    return World(federation, owner, a_client(federation, "hosp-1"), a_run(federation, owner))


# --- lists -----------------------------------------------------------------------------------------------------------

Grow = Callable[[World, int], Any]


@dataclass
class Noun:
    path: str
    grow: Grow
    readers: Set[Role]
    """Roles that may read it, besides the owner."""
    field: str
    """One of a row's."""


_numbers = itertools.count(100)


def _next(count: int) -> Iterator[int]:
    """Numbers that no row has yet."""
    return itertools.islice(_numbers, count)


def _users(world: World, count: int) -> None:
    users = User.objects.bulk_create(User(username=f"user-{n}") for n in _next(count))
    Membership.objects.bulk_create(
        Membership(federation=world.federation, user=user, role=Role.AUDITOR) for user in users
    )


def _clients(world: World, count: int) -> list[Client]:
    return Client.objects.bulk_create(
        Client(federation=world.federation, name=f"more-{n:04}", number=n) for n in _next(count)
    )


def _federations(world: World, count: int) -> None:
    made = Federation.objects.bulk_create(Federation(name=f"F {n}", slug=f"f-{n:04}") for n in _next(count))
    Membership.objects.bulk_create(Membership(federation=one, user=world.owner, role=Role.AUDITOR) for one in made)


def _admissions(world: World, count: int) -> None:
    token, _ = create_token(world.federation, world.owner)
    Admission.objects.bulk_create(
        Admission(federation=world.federation, token=token, name=f"n-{n}", fingerprint=f"{n:064}", csr_pem="")
        for n in _next(count)
    )


def _tokens(world: World, count: int) -> None:
    EnrolmentToken.objects.bulk_create(
        EnrolmentToken(federation=world.federation, key_id=f"t{n}", created_by=world.owner, expires_at=NOW)
        for n in _next(count)
    )


def _invitations(world: World, count: int) -> None:
    Invitation.objects.bulk_create(
        Invitation(
            federation=world.federation, role=Role.AUDITOR, secret_sha256=f"{n}", created_by=world.owner, expires_at=NOW
        )
        for n in _next(count)
    )


def _keys(world: World, count: int) -> None:
    ApiKey.objects.bulk_create(
        ApiKey(
            federation=world.federation, user=world.owner, key_id=f"k{n}", name="k", scopes=["read"], expires_at=NOW,
            secret_sha256="",
        )
        for n in _next(count)
    )  # fmt: skip


def _apps(world: World, count: int) -> None:
    App.objects.bulk_create(
        App(federation=world.federation, name=f"app-{n}", version="1", signature=[]) for n in _next(count)
    )


def _strategies(world: World, count: int) -> None:
    made = Strategy.objects.bulk_create(Strategy(federation=world.federation, name=f"s-{n:04}") for n in _next(count))
    config = StrategyConfig().model_dump(mode="json")
    StrategyVersion.objects.bulk_create(StrategyVersion(strategy=one, number=1, config=config) for one in made)


def _versions(world: World, count: int) -> None:
    strategy, config = world.federation.strategies.get(), StrategyConfig().model_dump(mode="json")
    StrategyVersion.objects.bulk_create(
        StrategyVersion(strategy=strategy, number=n, config=config) for n in _next(count)
    )


def _runs(world: World, count: int) -> None:
    run = world.run
    Run.objects.bulk_create(
        Run(
            federation=world.federation, name=f"r {n}", strategy_version=run.strategy_version, app=run.app, seed=1, num_rounds=1,
            status=("queued", "running", "completed")[n % 3], started_at=NOW, created_by=world.owner,
        )
        for n in _next(count)
    )  # fmt: skip


def _rounds(world: World, count: int) -> list[Round]:
    return Round.objects.bulk_create(Round(run=world.run, number=n, started_at=NOW) for n in _next(count))


def _participations(world: World, count: int) -> None:
    rounds = _rounds(world, count)
    Participation.objects.bulk_create(Participation(round=one, client=world.client) for one in rounds)


def _models(world: World, count: int) -> None:
    ModelVersion.objects.bulk_create(
        ModelVersion(run=world.run, round_number=n, key=f"k{n}", sha256="0" * 64, size=1) for n in _next(count)
    )


def _commands(world: World, count: int) -> None:
    RunCommand.objects.bulk_create(
        RunCommand(run=world.run, key=f"c{n}", kind="pause", actor_name="owner", round_number=0) for n in _next(count)
    )


def _queries(world: World, count: int) -> None:
    config = {"column": "age", "statistics": ["mean"]}
    Query.objects.bulk_create(
        Query(federation=world.federation, app=world.run.app, config=config, created_by=world.owner)
        for _ in range(count)
    )


def _entries(world: World, count: int) -> None:
    for n in _next(count):
        record(world.federation, world.owner, "test.done", f"thing {n}")


def _certificates(world: World, count: int) -> None:
    Certificate.objects.bulk_create(
        Certificate(client=world.client, serial=f"s{n}", fingerprint="", not_before=NOW, not_after=NOW)
        for n in _next(count)
    )


def _connections(world: World, count: int) -> None:
    Connection.objects.bulk_create(
        Connection(client=world.client, session_id=f"c{n}", opened_at=NOW) for n in _next(count)
    )


def _alerts(world: World, count: int) -> None:
    said = {"kind": Kind.CLIENT_OFFLINE, "severity": Severity.WARNING, "title": "away", "fired_at": NOW}
    rule, numbers = world.federation.alert_rules.first(), _next(count)
    Alert.objects.bulk_create(
        Alert(
            federation=world.federation, rule=rule, subject=f"client:{n}", client=world.client, run=world.run,
            acknowledged_at=NOW, acknowledged_by=world.owner, **said,
        )
        for n in numbers
    )  # fmt: skip


def _webhooks(world: World, count: int) -> list[Webhook]:
    return Webhook.objects.bulk_create(
        Webhook(federation=world.federation, name=f"w-{n}", url="https://example.org/hook", created_by=world.owner)
        for n in _next(count)
    )


def _alert_rules(world: World, count: int) -> None:
    """Each with a webhook of its own."""
    made = AlertRule.objects.bulk_create(
        AlertRule(
            federation=world.federation, name=f"r-{n}", kind=Kind.CLIENT_OFFLINE, severity=Severity.WARNING,
            settings={"minutes": 15},
        )
        for n in _next(count)
    )  # fmt: skip
    for rule, webhook in zip(made, _webhooks(world, count), strict=True):
        rule.webhooks.add(webhook)


def _deliveries(world: World, count: int) -> None:
    rule = world.federation.alert_rules.first()
    Delivery.objects.bulk_create(
        Delivery(federation=world.federation, rule=rule, webhook=webhook, recipient=world.owner, subject="s", body="")
        for webhook in _webhooks(world, count)
    )


def _shares(world: World, count: int) -> None:
    Share.objects.bulk_create(
        Share(run=world.run, secret_sha256=f"{n:064}", created_by=world.owner, expires_at=NOW) for n in _next(count)
    )


def _registered(world: World, count: int) -> None:
    """Each with a version in production."""
    names = [f"m-{n}" for n in _next(count)]
    made = RegisteredModel.objects.bulk_create(
        RegisteredModel(federation=world.federation, name=name) for name in names
    )
    sources = _checkpoints(world, count)
    RegisteredVersion.objects.bulk_create(
        RegisteredVersion(model=model, number=1, source=source, status=Stage.PRODUCTION, promoted_by=world.owner)
        for model, source in zip(made, sources, strict=True)
    )


def _registered_versions(world: World, count: int) -> None:
    """Each with a metric of its round."""
    model = RegisteredModel.objects.get(name="grown")
    RegisteredVersion.objects.bulk_create(
        RegisteredVersion(model=model, number=source.round_number, source=source, promoted_by=world.owner)
        for source in _checkpoints(world, count)
    )


def _checkpoints(world: World, count: int) -> list[ModelVersion]:
    numbers = list(_next(count))
    Metric.objects.bulk_create(
        Metric(run=world.run, round_number=n, source="server", name="loss", value=0.5) for n in numbers
    )
    return ModelVersion.objects.bulk_create(
        ModelVersion(run=world.run, round_number=n, key=f"c{n}", sha256="0" * 64, size=1) for n in numbers
    )


MANAGERS: set[Role] = {Role.OPERATOR}
LISTS = [
    Noun("federations", _federations, ROLES, "slug"),
    Noun("{f}/members", _users, READERS, "username"),
    Noun("{f}/invitations", _invitations, set(), "role"),
    Noun("{f}/keys", _keys, ROLES, "prefix"),
    Noun("{f}/admissions", _admissions, MANAGERS, "id"),
    Noun("{f}/clients", _clients, ROLES, "name"),
    Noun("{client}/certificates", _certificates, ROLES, "serial"),
    Noun("{client}/connections", _connections, ROLES, "opened_at"),
    Noun("{client}/participations", _participations, ROLES, "run"),
    Noun("{f}/tokens", _tokens, MANAGERS, "key_id"),
    Noun("{f}/apps", _apps, READERS, "name"),
    Noun("{f}/strategies", _strategies, READERS, "latest"),
    Noun("{f}/strategies/plain/versions", _versions, READERS, "number"),
    Noun("{f}/runs", _runs, READERS, "name"),
    Noun("{run}/rounds", _rounds, READERS, "number"),
    Noun("{run}/participations", _participations, READERS, "client"),
    Noun("{run}/models", _models, READERS, "sha256"),
    Noun("{run}/commands", _commands, READERS, "kind"),
    Noun("{f}/queries", _queries, READERS, "column"),
    Noun("{f}/audit", _entries, {Role.OPERATOR, Role.AUDITOR}, "action"),
    Noun("{f}/alerts", _alerts, ROLES, "title"),
    Noun("{f}/alert-rules", _alert_rules, READERS, "name"),
    Noun("{f}/webhooks", _webhooks, set(), "name"),
    Noun("{f}/deliveries", _deliveries, set(), "subject"),
    Noun("{f}/models", _registered, READERS, "name"),
    Noun("{f}/models/grown/versions", _registered_versions, READERS, "number"),
    Noun("{run}/shares", _shares, READERS, "note"),
]
OF_ADMINISTRATORS = {"InstalledFederations"}
"""No member's: test_ownerless.py has the like of this."""
every_list = pytest.mark.parametrize("noun", LISTS, ids=lambda noun: noun.path)


def test_every_list_has_a_row_here() -> None:
    views = {view for view in walk(get_resolver("fedui.api.urls").url_patterns) if issubclass(view, ListView)}
    assert {view.__name__ for view in views} - OF_ADMINISTRATORS == {viewed(noun.path).__name__ for noun in LISTS}


def viewed(path: str, it: Any = 1) -> type[Any]:
    paths = {"f": "federations/x", "client": f"federations/x/clients/{uuid.uuid4()}", "run": "runs/1"}
    view: type[Any] = resolve(f"/api/v1/{path.format(it=it, **paths)}").func.cls  # type: ignore[attr-defined]
    return view


@every_list
def test_a_list_comes_in_pages_both_ways_without_gaps(world: World, noun: Noun) -> None:
    noun.grow(world, 7)
    caller, path = as_user(world.owner), world.path(noun.path)
    everything = caller.get(path).json()["results"]
    assert len(everything) >= 7

    pages, address = [], f"{path}?limit=3"
    while address:
        body = caller.get(address).json()
        pages.append(body["results"])
        address = body["next"] and body["next"].partition("/api/v1/")[2]
    assert [row for page in pages for row in page] == everything
    assert max(map(len, pages)) == 3
    back = caller.get(body["previous"].partition("/api/v1/")[2]).json()["results"]
    assert back == pages[-2]
    sparse = caller.get(f"{path}?limit=1&fields={noun.field}").json()["results"]
    assert [list(row) for row in sparse] == [[noun.field]]


@every_list
def test_a_list_costs_as_many_queries_for_500_rows_as_for_50(world: World, noun: Noun) -> None:
    caller, path = as_user(world.owner), world.path(noun.path)
    few, many = (5, 20) if noun.grow is _entries else (50, 450)  # entries of the audit log are chained one by one
    costs = []
    for more in (few, many):
        noun.grow(world, more)
        with CaptureQueriesContext(connection) as made:
            assert caller.get(f"{path}?limit=200").status_code == 200
        costs.append(len(made))
    assert costs[0] == costs[1]


@every_list
def test_a_list_is_for_those_whose_role_allows_it(world: World, noun: Noun, stranger: User) -> None:
    path = world.path(noun.path)
    assert Caller().get(path).status_code == 401
    refused = 404 if noun.path.startswith("{run}") else 403  # to a site admin a run doesn't exist
    told = {role: as_user(member_of(world, role)).get(path).status_code for role in ROLES}
    assert told == {role: 200 if role in noun.readers else refused for role in ROLES}
    if noun.path != "federations":
        assert as_user(stranger).get(path).status_code == 404


def member_of(world: World, role: Role) -> User:
    """A site admin's client is the world's."""
    user = a_user(f"a-{role.value}")
    add_member(world.federation, user, role, world.owner, clients=[world.client])
    return user


# --- changes ---------------------------------------------------------------------------------------------------------


@dataclass
class Change:
    method: str
    path: str
    body: dict[str, Any] | None
    action: str
    """Of the one entry in the audit log that it makes."""
    refused: Role | None
    """Of a member who may not."""
    prepare: Callable[[World], Any] = lambda world: None
    """Makes what it is done to, whose key is {it} in the path."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def a_researcher(world: World) -> int:
    user = a_user(f"researcher-{next(_numbers)}")
    return add_member(world.federation, user, Role.RESEARCHER, world.owner).pk


def an_invitation(world: World) -> int:
    return invite(world.federation, world.owner, Role.AUDITOR)[0].pk


def a_key(world: World) -> int:
    member = world.federation.memberships.get(user=world.owner)
    return create_key(member, name="k", scopes=[Scope.READ], lifetime=timedelta(1))[0].pk


def a_token(world: World) -> int:
    return create_token(world.federation, world.owner)[0].pk


def someone_waiting(world: World) -> uuid.UUID:
    _, text = create_token(world.federation, world.owner, requires_approval=True)
    return enrol(text, a_csr(), Applicant("hosp-2", "host", "0.1.0", "Linux", "192.0.2.1")).pk


def suspended(world: World) -> None:
    suspend_client(Client.objects.get(pk=world.client.pk), world.owner)


def an_open_column(world: World) -> None:
    offer = [{"name": "digits-mlp", "version": "1", "framework": "", "problem": "", "columns": ["age"]}]
    a_client(world.federation)
    world.federation.clients.update(apps=offer)


def a_query(world: World) -> int:
    config = QueryConfig(column="age", statistics=("mean",))
    said = config.model_dump(mode="json")
    return Query.objects.create(federation=world.federation, app=world.run.app, config=said).pk


def a_rule(world: World) -> int:
    return create_rule(world.federation, world.owner, RuleContent(f"Away {next(_numbers)}", Kind.CLIENT_OFFLINE)).pk


def an_alert(world: World) -> int:
    rule = AlertRule.objects.get(pk=a_rule(world))
    said = {"kind": rule.kind, "severity": rule.severity, "subject": "client:1", "title": "hosp-1 is offline"}
    return Alert.objects.create(federation=world.federation, rule=rule, fired_at=NOW, **said).pk


def a_webhook(world: World) -> uuid.UUID:
    return create_webhook(world.federation, world.owner, name=f"ops-{next(_numbers)}", url="https://example.org/hook")[
        0
    ].pk


def a_delivery(world: World) -> uuid.UUID:
    webhook = Webhook.objects.get(pk=a_webhook(world))
    said = {"subject": "s", "body": "{}", "status": DeliveryStatus.DELIVERED}
    return Delivery.objects.create(federation=world.federation, webhook=webhook, **said).pk


def a_registered_model(world: World) -> str:
    checkpoint = ModelVersion.objects.create(
        run=world.run, round_number=next(_numbers), key="k", size=1, sha256="0" * 64
    )

    return promote(checkpoint, world.owner, f"digits-{checkpoint.round_number}").model.name


def a_share(world: World) -> int:
    return share(world.run, world.owner, naming=Naming.NUMBERS, lifetime=timedelta(1))[0].pk


RUN = {"name": "new", "app": "digits-mlp", "app_version": "1", "strategy": "plain", "num_rounds": 3}
QUERY = {"app": "digits-mlp", "app_version": "1", "config": {"column": "age", "statistics": ["mean"]}}
WEIGH = {"command": "weigh", "client": "hosp-1", "percent": 0, "why": "noise"}
KEY = {"name": "k", "scopes": ["read"]}
RULE = {"name": "Away", "kind": "client_offline", "settings": {"minutes": 9}}
WEBHOOK = {"name": "ops", "url": "https://example.org/hook"}
STAGING = {"stage": "staging"}
CHANGES = [
    Change("post", "federations", {"name": "New"}, "federation.created", None),
    Change("patch", "{f}", {"name": "Renamed"}, "federation.changed", Role.OPERATOR),
    Change("patch", "{f}/members/{it}", {"role": "auditor"}, "member.changed", Role.OPERATOR, a_researcher),
    Change("delete", "{f}/members/{it}", None, "member.removed", Role.OPERATOR, a_researcher),
    Change("post", "{f}/invitations", {"role": "auditor"}, "invitation.created", Role.OPERATOR),
    Change("post", "{f}/invitations/{it}/revoke", {}, "invitation.revoked", Role.OPERATOR, an_invitation),
    Change("post", "{f}/keys", KEY, "key.created", None),
    Change("post", "{f}/keys/{it}/revoke", {}, "key.revoked", None, a_key),
    Change("post", "{f}/tokens", {"note": "north"}, "token.created", Role.RESEARCHER),
    Change("post", "{f}/tokens/{it}/revoke", {}, "token.revoked", Role.RESEARCHER, a_token),
    Change("post", "{f}/admissions/{it}/admit", {}, "client.enrolled", Role.RESEARCHER, someone_waiting),
    Change(
        "post",
        "{f}/admissions/{it}/refuse",
        {"reason": "no"},
        "client.admission_refused",
        Role.AUDITOR,
        someone_waiting,
    ),
    Change("put", "{client}/labels", {"labels": {"region": "north"}}, "client.labelled", Role.SITE_ADMIN),
    Change("post", "{client}/suspend", {}, "client.suspended", Role.SITE_ADMIN),
    Change("post", "{client}/reinstate", {}, "client.reinstated", Role.RESEARCHER, suspended),
    Change("post", "{client}/revoke", {}, "client.revoked", Role.RESEARCHER),
    Change("post", "{f}/strategies", {"name": "new", "config": {}}, "strategy.created", Role.AUDITOR),
    Change(
        "post",
        "{f}/strategies/plain/versions",
        {"config": {"cohort": {"min_clients": 3}}},
        "strategy.changed",
        Role.AUDITOR,
    ),
    Change("post", "{f}/runs", RUN, "run.created", Role.AUDITOR),
    Change("post", "{run}/commands", {"command": "pause"}, "run.paused", Role.AUDITOR),
    Change("post", "{run}/commands", WEIGH, "run.client_weighed", Role.AUDITOR),
    Change("put", "{f}/rules", {"max_runs": 3}, "federation.run_rules", Role.RESEARCHER),
    Change("post", "{f}/queries", QUERY, "query.created", Role.AUDITOR, an_open_column),
    Change("post", "queries/{it}/cancel", {}, "query.cancelled", Role.AUDITOR, a_query),
    Change("post", "{f}/alerts/{it}/acknowledge", {}, "alert.acknowledged", Role.RESEARCHER, an_alert),
    Change("post", "{f}/alerts/{it}/mute", {"hours": 2}, "alert.muted", Role.RESEARCHER, an_alert),
    Change("post", "{f}/alert-rules", RULE | {"name": "New"}, "alert_rule.created", Role.RESEARCHER),
    Change("put", "{f}/alert-rules/{it}", RULE, "alert_rule.changed", Role.RESEARCHER, a_rule),
    Change("delete", "{f}/alert-rules/{it}", None, "alert_rule.removed", Role.RESEARCHER, a_rule),
    Change("post", "{f}/alert-rules/{it}/mute", {"hours": 2}, "alert_rule.muted", Role.RESEARCHER, a_rule),
    Change("post", "{f}/webhooks", WEBHOOK | {"name": "new"}, "webhook.created", Role.OPERATOR),
    Change("put", "{f}/webhooks/{it}", WEBHOOK | {"enabled": False}, "webhook.changed", Role.OPERATOR, a_webhook),
    Change("delete", "{f}/webhooks/{it}", None, "webhook.removed", Role.OPERATOR, a_webhook),
    Change("post", "{f}/webhooks/{it}/rotate", {}, "webhook.secret_rotated", Role.OPERATOR, a_webhook),
    Change("post", "{f}/webhooks/{it}/test", {}, "webhook.tested", Role.OPERATOR, a_webhook),
    Change("post", "{f}/deliveries/{it}/redeliver", {}, "delivery.repeated", Role.OPERATOR, a_delivery),
    Change("patch", "{f}/models/{it}", {"description": "d"}, "model.described", Role.AUDITOR, a_registered_model),
    Change("patch", "{f}/models/{it}/versions/1", {"notes": "n"}, "model.described", Role.AUDITOR, a_registered_model),
    Change("post", "{f}/models/{it}/versions/1/stage", STAGING, "model.moved", Role.AUDITOR, a_registered_model),
    Change("post", "{f}/models/{it}/versions/1/check", {}, "model.check_asked", Role.AUDITOR, a_registered_model),
    Change("post", "{run}/shares", {"days": 2}, "share.created", Role.RESEARCHER),
    Change("post", "{run}/shares/{it}/revoke", {}, "share.revoked", Role.RESEARCHER, a_share),
]
WITHOUT_EFFECT = {"ValidateStrategy.POST", "Verification.POST", "Enrol.POST", "RulePreview.POST"} | {
    "RegisteredVersionList.POST",
    "AppointOwner.POST",
}
"""Nothing is saved; the log is read again; agents are told apart by token and key (test_enrolment.py); a promotion names a run
(test_api_registry.py); no member appoints an owner (test_ownerless.py)."""
every_change = pytest.mark.parametrize("change", CHANGES, ids=str)


def prepared(world: World, change: Change) -> tuple[str, dict[str, str]]:
    """The address, and the headers that the change takes."""
    path = world.path(change.path, it=change.prepare(world))
    if change.method == "post":
        return path, {}
    return path, {"if_match": as_user(world.owner).get(path)["ETag"]}


def told_of(change: Change) -> int:
    return AuditEvent.objects.filter(action=change.action).count()


def test_every_change_has_a_row_here() -> None:
    views = {view for view in walk(get_resolver("fedui.api.urls").url_patterns) if issubclass(view, ApiView)}
    there = {f"{view.__name__}.{method}" for view in views for method in view.acts if method != "GET"}
    rows = set()
    for change in CHANGES:
        it = uuid.uuid4() if re.search("admissions|webhooks|deliveries", change.path) else 1
        rows.add(f"{viewed(change.path, it).__name__}.{change.method.upper()}")
    assert there - WITHOUT_EFFECT == rows


def walk(patterns: Any) -> Iterator[type[Any]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from walk(pattern.url_patterns)
        elif hasattr(pattern.callback, "cls"):
            yield pattern.callback.cls


@every_change
def test_a_change_that_is_sent_twice_has_one_effect(world: World, change: Change) -> None:
    path, headers = prepared(world, change)
    caller, before = as_user(world.owner), told_of(change)
    headers["idempotency_key"] = str(uuid.uuid4())

    first, second = (caller.call(change.method, path, change.body, **headers) for _ in range(2))

    assert first.status_code in (200, 201, 202, 204), first.content
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert "Idempotent-Replayed" in second and "Idempotent-Replayed" not in first
    assert told_of(change) == before + 1
    if change.method != "delete":
        other = caller.call(change.method, path, (change.body or {}) | {"another": 1}, **headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    stored = bytes(StoredAnswer.objects.get().answer or b"")
    for shown_once in ("token", "key", "link"):
        if first.content and shown_once in first.json() and shown_once + "s" in path:
            assert str(first.json()[shown_once]).encode() not in stored


@every_change
def test_a_change_is_refused_to_strangers_and_to_other_roles(world: World, change: Change, stranger: User) -> None:
    path, headers = prepared(world, change)
    before = told_of(change)
    assert Caller().call(change.method, path, change.body).status_code == 401
    if change.path != "federations":
        assert as_user(stranger).call(change.method, path, change.body, **headers).status_code == 404
    if change.refused:
        refused = as_user(member_of(world, change.refused)).call(change.method, path, change.body, **headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert told_of(change) == before


@pytest.mark.parametrize("change", [one for one in CHANGES if one.method != "post"], ids=str)
def test_a_change_says_of_what(world: World, change: Change) -> None:
    path, _ = prepared(world, change)
    caller, before = as_user(world.owner), told_of(change)
    blind = caller.call(change.method, path, change.body)
    stale = caller.call(change.method, path, change.body, if_match='"of another state"')
    assert [(one.status_code, one.json()["code"]) for one in (blind, stale)] == [
        (428, "precondition_required"), (412, "precondition_failed"),
    ]  # fmt: skip
    assert told_of(change) == before


@pytest.mark.django_db(transaction=True)
def test_changes_that_are_sent_twice_at_once_have_one_effect(world: World) -> None:
    """One after the other, each by two threads at once."""
    for change in CHANGES:
        if change.path.endswith(("/reinstate", "/revoke")) and "{client}" in change.path:
            world.client = a_client(world.federation)
        path, headers = prepared(world, change)
        before, answers = told_of(change), at_once(world.owner, change, path, headers)
        assert len({(one.status_code, one.content) for one in answers}) == 1, (change, answers)
        assert answers[0].status_code in (200, 201, 202, 204), answers[0].content
        assert told_of(change) == before + 1, change


def at_once(user: User, change: Change, path: str, headers: dict[str, str]) -> list[Any]:
    key, barrier = str(uuid.uuid4()), threading.Barrier(2)
    callers = [as_user(user) for _ in range(2)]

    def send(caller: Caller) -> Any:
        barrier.wait(timeout=20)
        try:
            return caller.call(change.method, path, change.body, idempotency_key=key, **headers)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(send, callers))


# --- reads of one thing ----------------------------------------------------------------------------------------------

READS = [
    ("me", None), ("{f}", None), ("{f}/members/{it}", a_researcher), ("{f}/invitations/{it}", an_invitation), ("{f}/keys/{it}", a_key),
    ("{f}/tokens/{it}", a_token), ("{f}/admissions/{it}", someone_waiting), ("{client}", None), ("{client}/labels", None),
    ("{client}/vitals", None), ("{f}/strategies/plain", None), ("{f}/strategies/plain/versions/1", None), ("{run}", None),
    ("{run}/metrics", None), ("{f}/rules", None), ("queries/{it}", a_query), ("{f}/audit/verification", None),
    ("{f}/rules/preview", None), ("{run}/snapshot", None), ("{run}/heat", None), ("{run}/outlook", None),
    ("{run}/clients/{it}", lambda world: world.client.pk), ("{run}/rounds/1/participations", None),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "prepare"), READS, ids=[read[0] for read in READS])
def test_a_read_has_an_etag_and_sparse_fields(
    world: World, pattern: str, prepare: Callable[[World], Any] | None, stranger: User
) -> None:
    caller = as_user(world.owner)
    path = world.path(pattern, it=prepare(world) if prepare else None)
    whole = caller.get(path)
    assert whole.status_code == 200, whole.content
    known = caller.get(path, if_none_match=whole["ETag"])
    assert (known.status_code, known.content, known["ETag"]) == (304, b"", whole["ETag"])
    name = next(iter(whole.json()))
    sparse = caller.get(f"{path}?fields={name}")
    assert (list(sparse.json()), sparse["ETag"]) == ([name], whole["ETag"])
    if pattern != "me":
        assert as_user(stranger).get(path).status_code == 404


# --- idempotency keys ------------------------------------------------------------------------------------------------


def test_a_refused_call_leaves_its_key_free(world: World) -> None:
    caller, key = as_user(world.owner), str(uuid.uuid4())
    body = {"name": "plain", "config": {}}
    assert caller.post("federations/hearts/strategies", body, idempotency_key=key).status_code == 409
    Strategy.objects.all().update(name="other")
    assert caller.post("federations/hearts/strategies", body, idempotency_key=key).status_code == 201


def test_a_key_is_its_callers_and_ends(world: World) -> None:
    key, path = str(uuid.uuid4()), "federations/hearts/tokens"
    operator = as_user(a_member(world.federation, Role.OPERATOR))
    numbers = {
        one.post(path, {"note": "n"}, idempotency_key=key).json()["id"] for one in (as_user(world.owner), operator)
    }
    assert len(numbers) == 2
    StoredAnswer.objects.update(expires_at=timezone.now())
    again = operator.post(path, {"note": "n"}, idempotency_key=key)
    assert again.json()["id"] not in numbers
    assert forget_expired() == 1
    assert StoredAnswer.objects.count() == 1


@pytest.mark.parametrize("key", ["short", "with a space in it and long", "x" * 256])
def test_keys_that_could_be_guessed_are_refused(world: World, key: str) -> None:
    refused = as_user(world.owner).post("federations/hearts/tokens", {"note": "n"}, idempotency_key=key)
    assert (refused.status_code, EnrolmentToken.objects.filter(note="n").exists()) == (400, False)


def test_who_may_no_more_is_not_answered_again(world: World) -> None:
    operator, key = a_member(world.federation, Role.OPERATOR), str(uuid.uuid4())
    assert as_user(operator).post("federations/hearts/tokens", {"note": "n"}, idempotency_key=key).status_code == 201
    world.federation.memberships.filter(user=operator).update(role=Role.AUDITOR)
    assert as_user(operator).post("federations/hearts/tokens", {"note": "n"}, idempotency_key=key).status_code == 403
