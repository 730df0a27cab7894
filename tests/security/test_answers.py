"""What every answer has, whoever asks for whatever; and what none has: a script of its own, or a secret."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.core.serializers.json import DjangoJSONEncoder
from django.test import Client as Browser

from fedui.audit.models import AuditEvent
from fedui.keys.models import ApiKey
from fedui.logging import logging_config
from fedui.runs.models import Event
from tests.security.authorisation import ROWS
from tests.security.world import World
from tests.support.api import Caller, as_user, with_key
from tests.support.domain import a_csr

pytestmark = pytest.mark.django_db
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
READS = sorted({row.address for row in ROWS if row.method == "GET"})
INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*type=.?application/json)[^>]*>|<[^>]+\son[a-z]+=|javascript:", re.IGNORECASE
)


def directives(policy: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (part.split() for part in policy.split(";") if part.strip())}


def answers(world: World, caller: str) -> Iterator[tuple[str, Any]]:
    """Of all addresses that are read; streams unread."""
    for address in READS:
        path = world.own.address(address)
        answer: Any = world.browsers[caller].get(
            f"/{path}", {"runs": world.own.named["run_id"]} if "compar" in path else {}
        )
        if answer.streaming:
            for close in answer._resource_closers:
                close()
        yield path, answer


def checked(path: str, answer: Any) -> None:
    for name, value in HEADERS.items():
        assert answer.get(name) in {value, "no-referrer"}, (path, name)
    policy = directives(answer["Content-Security-Policy"])
    scripts = policy.get("script-src", policy["default-src"])
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "https:", "data:"} & set(scripts), path
    assert policy["frame-ancestors"] == ["'none'"] and policy["object-src" if "object-src" in policy else "default-src"]
    if not answer.streaming and answer["Content-Type"].startswith("text/html"):
        assert INLINE.findall(answer.content.decode()) == [], path


@pytest.mark.parametrize("caller", ["owner", "site_admin", "stranger", "installation_admin", "anonymous"])
def test_every_answer_is_guarded(world: World, caller: str) -> None:
    """200, 302, 401, 403, 404 and whatever else there is: pages, documents, downloads, streams, the admin."""
    statuses = set()
    for path, answer in answers(world, caller):
        checked(path, answer)
        statuses.add(answer.status_code)
    for path in ("admin/", "admin/accounts/user/", "nowhere/", "api/v1/nowhere"):
        checked(path, world.browsers[caller].get(f"/{path}"))
    assert world.browsers[caller].get("/static/css/fedui.css")["X-Content-Type-Options"] == "nosniff"
    assert len(statuses) >= 3


# --- secrets ---------------------------------------------------------------------------------------------------------


def planted(world: World) -> dict[str, str]:
    """Secrets as people get and give them, each through the door that it comes by."""
    caller, slug = as_user(world.users["owner"]), "federations/hearts"
    token = caller.post(f"{slug}/tokens", {"note": "n"}, idempotency_key="k" * 20).json()["token"]
    key = caller.post(f"{slug}/keys", {"name": "planted", "scopes": ["read"]}).json()["key"]
    webhook = caller.post(f"{slug}/webhooks", {"name": "planted", "url": "https://a.example/h"}).json()["secret"]
    link = caller.post(f"{slug}/invitations", {"role": "auditor"}).json()["link"]
    share = caller.post(f"runs/{world.own.named['run_id']}/shares", {}).json()["link"]
    return {
        "token": token.split(".")[1], "API key": key.split("_")[2], "webhook": webhook.removeprefix("whsec_"),
        "invitation": link.rstrip("/").rpartition("/")[2], "share": share.rstrip("/").rpartition("/")[2],
        "password": "correct-horse-battery-7", "wrong password": "wrong-horse-battery-8",
        "_token": token, "_key": key,
    }  # fmt: skip


def used(world: World, secrets: dict[str, str]) -> None:
    """Each rightly and wrongly."""
    anonymous = Caller(Browser())
    applicant = {"name": "planted", "host": "h", "agent_version": "0.1.0", "platform": "Linux"}
    for token in (secrets["_token"], secrets["_token"][:-1]):
        anonymous.post("enroll", {"token": token, "csr_pem": a_csr(), **applicant})
    for key in (secrets["_key"], secrets["_key"][:-1]):
        with_key(key).get("federations/hearts/runs")
    invited = Browser()
    address = f"/invitations/{secrets['invitation']}/"
    password = secrets["password"]
    invited.get(address)
    invited.post(address, {"username": "invited", "email": "", "password1": password, "password2": password})
    for attempt in (secrets["wrong password"], password):
        Browser().post("/login/", {"login": "invited", "password": attempt})
    Browser().get(f"/reports/{secrets['share']}/")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that processes log, as they write it, of every level."""
    stream = io.StringIO()
    configuration = logging_config(log_format="json", level="DEBUG")
    handler = logging.StreamHandler(stream)
    formatter = dict(next(iter(configuration["formatters"].values())))
    handler.setFormatter(formatter.pop("()")(**formatter))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def stored() -> str:
    """Every row of every table, but for sessions: those hold what their browser has been given."""
    rows = {
        model._meta.label: list(model._default_manager.values()) for model in apps.get_models() if model is not Session
    }
    return json.dumps(rows, cls=DjangoJSONEncoder, default=repr)


def test_no_secret_is_told_again(world: World, log: io.StringIO) -> None:
    """Not in the log, nor in any row, answer, page or export, once it has been shown to who made it."""
    secrets = planted(world)
    used(world, secrets)
    assert ApiKey.objects.filter(name="planted", last_used_at__isnull=False).exists()
    assert {"account.signed_in", "client.enrolled"} <= set(AuditEvent.objects.values_list("action", flat=True))
    assert Event.objects.exists()

    told = {"the log": log.getvalue(), "the database": stored()}
    for caller in ("owner", "installation_admin"):
        for path, answer in answers(world, caller):
            if not answer.streaming:
                told[f"{path} for {caller}"] = answer.content.decode(errors="replace")
    told["the export"] = world.browsers["owner"].get("/api/v1/federations/hearts/audit?limit=200").content.decode()

    secrets = {name: text for name, text in secrets.items() if not name.startswith("_")}
    secrets |= {"private key": "PRIVATE KEY-----", "the installation's": django_settings.SECRET_KEY}
    assert all(len(text) >= 10 for text in secrets.values())
    found = {(name, place) for place, text in told.items() for name, secret in secrets.items() if secret in text}
    assert found == set()
