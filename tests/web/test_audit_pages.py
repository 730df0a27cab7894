"""The audit log's page: who may read it, how it is searched, and that its export can be verified by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.audit import chain, guards
from fedui.audit.models import AuditEvent, ChainCheck
from fedui.audit.services import record
from fedui.federations.models import Federation, Role
from tests.support.domain import a_federation, a_member, a_user

PAGE = "/f/hearts/audit/"


@pytest.fixture
def federation(db: None) -> Federation:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    record(federation, owner, "run.created", "digits-first", address="192.0.2.1", rounds=20)
    record(federation, "engine", "run.started", "digits-first")
    record(federation, owner, "strategy.changed", "plain", before={"quorum": 3}, after={"quorum": 4})
    record(a_federation("lungs", a_user("stranger")), "engine", "run.started", "nobody's business")
    return federation


@pytest.fixture
def browser(federation: Federation) -> Browser:
    browser = Browser()
    browser.force_login(a_member(federation, Role.AUDITOR))
    return browser


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("who=engine", ["run.started"]),
        ("kind=run", ["run.started", "run.created"]),
        ("kind=run&who=owner", ["run.created"]),
        ("q=192.0.2.1", ["run.created"]),
        ("q=plain", ["strategy.changed"]),
        ("via=engine", ["run.started"]),
        ("until=2001-01-01", []),
        ("since=nonsense&kind=strategy", ["strategy.changed"]),
    ],
)
def test_the_log_is_searched(browser: Browser, query: str, actions: list[str]) -> None:
    shown = browser.get(f"{PAGE}?{query}").context["shown"]

    assert [entry.action for entry in shown] == actions


def test_an_entry_tells_the_difference(browser: Browser, federation: Federation) -> None:
    entry = federation.audit_events.get(action="strategy.changed")
    text = browser.get(f"{PAGE}{entry.pk}/").content.decode()

    assert "- quorum: 3" in text and "+ quorum: 4" in text
    assert entry.hash in text


def test_entries_of_others_are_not_there(browser: Browser) -> None:
    foreign = AuditEvent.objects.get(subject="nobody's business")

    assert browser.get(f"{PAGE}{foreign.pk}/").status_code == 404


def test_the_export_is_a_whole_chain_that_tells_nothing_of_others(browser: Browser, federation: Federation) -> None:
    response: Any = browser.post(f"{PAGE}export/")
    lines = b"".join(response.streaming_content).decode().splitlines()

    verdict = chain.verify(map(json.loads, lines))
    assert verdict.whole and verdict.entries == AuditEvent.objects.count()
    assert verdict.withheld == AuditEvent.objects.exclude(federation=federation).count()
    assert "nobody's business" not in "".join(lines)
    assert federation.audit_events.first().action == "audit.exported"  # type: ignore[union-attr]


def test_the_page_tells_of_a_chain_that_was_changed(browser: Browser) -> None:
    browser.post(f"{PAGE}verify/")
    assert "Chain verified up to entry" in browser.get(PAGE).content.decode()

    guards.remove(connection)
    AuditEvent.objects.filter(action="run.created").update(subject="another")
    guards.install(connection)
    browser.post(f"{PAGE}verify/")
    assert "not as it was written" in browser.get(PAGE).content.decode()
    assert ChainCheck.objects.latest().faults


@pytest.mark.parametrize("path", ["", "1/", "verify/", "export/"])
def test_a_researcher_may_not_read_it(federation: Federation, path: str) -> None:
    browser = Browser()
    browser.force_login(a_member(federation, Role.RESEARCHER))

    assert (browser.post if path in ("verify/", "export/") else browser.get)(PAGE + path).status_code == 403


def test_a_member_is_named_by_who_acted(federation: Federation) -> None:
    assert federation.audit_events.get(action="run.created").actor == User.objects.get(username="owner")
