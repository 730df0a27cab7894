"""The small federation of `population`, furnished so that there is one of everything that a page can show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts.kinds import Kind, Severity
from fedui.alerts.models import Alert, AlertStatus, DeliveryStatus
from fedui.alerts.webhooks import create_webhook, send_test
from fedui.analytics.models import QueryStatus
from fedui.bookmarks.models import SavedView
from fedui.clients.admission import Applicant, enrol
from fedui.clients.models import Certificate, Client
from fedui.clients.services import create_token, revoke_client, suspend_client
from fedui.federations.invitations import invite
from fedui.federations.models import Role
from fedui.federations.services import add_member, create_federation
from fedui.keys.scopes import Scope
from fedui.keys.services import create_key, revoke_key
from fedui.reports.models import Naming
from fedui.reports.shares import share
from fedui.runs.models import Run, RunStatus
from tests.support.domain import a_csr
from tests.support.population import LONG_NAME, World, populate

RIGHT_TO_LEFT = "מרכז רפואי ירושלים – מחלקת אונקולוגיה, התחנה השנייה"
DAY = timedelta(1)
SECOND_QUERY = "resting heart rate as it was measured at admission, in beats a minute"


@dataclass(frozen=True)
class Gallery:
    """What stands for names in addresses of pages, and who looks."""

    world: World
    people: dict[str, User]
    """Beside the owner: `careful` has a second factor, `root` looks after the installation, the newcomer's federation is empty."""
    names: dict[str, object]

    def address(self, path: str) -> str:
        """A page's: of the federation, or from the site's root where it begins with a slash."""
        return ("" if path.startswith("/") else self.world.root) + path.format(**self.names)


def furnish() -> Gallery:
    world = populate()
    names = {"run": world.run.pk, "other": world.other_run.pk, "client": world.client.pk, "query": world.query.pk}
    names |= _clients(world) | _runs(world) | _queries(world) | _alerts(world) | _members(world)
    people = {"owner": world.owner, "researcher": world.researcher, "stranger": world.stranger}
    people["root"] = User.objects.create_superuser("root", password="x")
    people["site_admin"] = User.objects.create_user("site", password="x")
    add_member(world.federation, people["site_admin"], Role.SITE_ADMIN, world.owner, clients=[world.client])
    people["careful"] = User.objects.create_user("careful", password="x", email="careful@example.org")
    TOTP.activate(people["careful"], generate_totp_secret())
    RecoveryCodes.activate(people["careful"])
    people["newcomer"] = User.objects.create_user("new", password="x")
    create_federation("Nothing yet", "nothing", people["newcomer"])
    return Gallery(world, people, names)


def _clients(world: World) -> dict[str, object]:
    now = timezone.now()
    suspended, revoked, late, silent = (
        Client.objects.create(
            federation=world.federation, name=name, number=number, agent_version="0.1.0", platform="Linux-6.1-x86_64",
            labels={"region": "south"}, last_seen_at=seen, lease_expires_at=seen and seen + timedelta(minutes=1),
            connected=seen is not None,
        )
        for number, (name, seen) in enumerate(
            (("hosp-oak", now), ("hosp-fir", now), (RIGHT_TO_LEFT, now - timedelta(seconds=40)), ("hosp-ash", None)), start=3
        )
    )  # fmt: skip
    for client in (suspended, revoked, late):
        Certificate.objects.create(
            client=client, serial=f"{client.number:x}", fingerprint="e" * 64, not_before=now, not_after=now + DAY
        )
    Client.objects.filter(pk=suspended.pk).update(
        apps=[{"name": "digits-mlp", "version": "1.0", "framework": "numpy", "problem": "", "columns": []}]
    )
    suspend_client(suspended, world.owner)
    revoke_client(revoked, world.owner)
    _, text = create_token(world.federation, world.owner, note="Autumn", requires_approval=True, max_uses=9)
    for name, host in (
        ("hosp-yew", "ward-pc-7"),
        (f"{LONG_NAME}-2", "a-machine-with-a-very-long-name.radiology.example.org"),
    ):
        enrol(text, a_csr(), Applicant(name, host, "0.2.0", "Linux", "192.0.2.17"))
    return {"suspended": suspended.pk, "revoked": revoked.pk, "late": late.pk, "silent": silent.pk}


def _runs(world: World) -> dict[str, object]:
    now = timezone.now()
    common = {
        "federation": world.federation, "strategy_version": world.version, "app": world.run.app, "created_by": world.owner,
        "num_rounds": 20,
    }  # fmt: skip
    failed = Run.objects.create(
        **common, name=f"{RIGHT_TO_LEFT} 7", seed=1, status=RunStatus.FAILED, started_at=now - DAY, ended_at=now - DAY,
        reason="Round 1 had 1 of the 2 updates that it needs, three times in a row.",
    )  # fmt: skip
    Run.objects.create(**common, name="digits-next", seed=2, status=RunStatus.QUEUED)
    link = share(world.run, world.owner, naming=Naming.NUMBERS, lifetime=DAY, note="For the ethics committee")[1]
    return {"failed": failed.pk, "report": link.rstrip("/").rpartition("/")[2]}


def _queries(world: World) -> dict[str, object]:
    config = world.query.config | {"column": SECOND_QUERY}
    refused = world.federation.queries.create(
        app=world.query.app, config=config, status=QueryStatus.FAILED, created_by=world.owner, started_at=timezone.now(),
        ended_at=timezone.now(), reason="1 client answered; 2 are needed.",
    )  # fmt: skip
    return {"refused": refused.pk}


def _alerts(world: World) -> dict[str, object]:
    now = timezone.now()
    rule = world.federation.alert_rules.get(kind=Kind.CLIENT_OFFLINE)
    told = {"federation": world.federation, "rule": rule, "kind": rule.kind}
    subjects = {
        "first": {},
        "known": {"acknowledged_at": now, "acknowledged_by": world.owner},
        "over": {"status": AlertStatus.RESOLVED, "resolved_at": now},
    }
    for number, (subject, state) in enumerate(subjects.items()):
        Alert.objects.create(
            **told, **state, severity=list(Severity)[number % len(Severity)], subject=subject, client=world.client,
            title=f"{LONG_NAME} is offline", detail="For 20 minutes. Its last connection was lost.",
            fired_at=now - timedelta(minutes=20), opened_at=now - timedelta(minutes=5),
        )  # fmt: skip
    webhook, _ = create_webhook(
        world.federation, world.owner, name="Pager of the night", url="https://receiver.example/" + 9 * "hook/"
    )
    send_test(webhook, world.owner)
    failed = send_test(webhook, world.owner)
    failed.status, failed.attempts, failed.ended_at = DeliveryStatus.FAILED, 8, now
    failed.log = [{"at": now.isoformat(), "status": 503, "detail": "Service unavailable", "seconds": 0.2}]
    failed.save()
    return {"rule": rule.pk, "webhook": webhook.pk}


def _members(world: World) -> dict[str, object]:
    membership = world.federation.memberships.get(user=world.owner)
    create_key(membership, name="Nightly export", scopes=[Scope.READ, Scope.MODELS], lifetime=DAY)
    revoke_key(create_key(membership, name="Given up", scopes=[Scope.READ], lifetime=DAY)[0], world.owner)
    _, link = invite(world.federation, world.owner, Role.AUDITOR)
    query = f"presence=offline&label={LONG_NAME}"
    SavedView.objects.create(
        federation=world.federation,
        owner=world.owner,
        name="Offline in the annex",
        page="clients",
        path="clients/",
        query=query,
    )
    member = world.federation.memberships.get(user=world.researcher)
    return {"member": member.pk, "secret": link.rstrip("/").rpartition("/")[2]}
