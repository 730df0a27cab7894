"""Two who do the same, or change the same, at once: both are answered, and one thing comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.alerts.models import AlertRule
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member
from fedui.runs.commands import Order, prioritise
from fedui.runs.models import ModelVersion, Run, RunCommand
from fedui.runs.services import create_run
from tests.support.at_once import at_once
from tests.support.domain import a_federation, a_run, a_user

ROUNDS = 4
CHANGES = 20


@pytest.fixture
def owner(transactional_db: None) -> User:
    return a_user("owner")


@pytest.fixture
def federation(owner: User) -> Federation:
    return a_federation("hearts", owner)


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def test_a_run_is_made_once_by_a_form_that_is_sent_twice(federation: Federation, owner: User) -> None:
    run = a_run(federation, owner)
    made: list[Run] = []

    def send(key: str) -> None:
        made.append(
            create_run(
                federation, owner, key=key, name="twice", strategy_version=run.strategy_version, app=run.app,
                num_rounds=3, seed=1,
            )
        )  # fmt: skip

    for number in range(ROUNDS):
        at_once(lambda: send(f"key-{number}"), lambda: send(f"key-{number}"))  # noqa: B023  # it is called in the loop

    assert federation.runs.filter(name="twice").count() == ROUNDS
    assert len(made) == 2 * ROUNDS


def test_a_fork_and_an_order_to_its_origin(federation: Federation, owner: User) -> None:
    """Who holds the head of the audit log waits for no run."""
    run = a_run(federation, owner)
    ModelVersion.objects.create(run=run, round_number=1, key="x", sha256="a" * 64, size=1)
    wanted = {
        "name": "fork", "app": run.app.name, "app_version": "1", "strategy": "plain", "num_rounds": 3,
        "origin": {"run": run.pk, "round": 1},
    }  # fmt: skip
    browser, codes = signed_in(owner), []

    def fork() -> None:
        answer = browser.post("/api/v1/federations/hearts/runs", json.dumps(wanted), content_type="application/json")
        codes.append(answer.status_code)

    def change() -> None:
        for number in range(CHANGES):
            prioritise(run, Order(owner), priority=number % 2)

    for _ in range(ROUNDS):
        at_once(fork, change)

    assert codes == [201] * ROUNDS
    assert RunCommand.objects.filter(run=run, kind="fork").count() == ROUNDS


def test_a_rule_by_page_and_by_rest(federation: Federation, owner: User) -> None:
    rule = AlertRule.objects.get(kind="run_failed")
    by_page, by_rest, codes = signed_in(owner), signed_in(owner), []
    address = f"/api/v1/federations/hearts/alert-rules/{rule.pk}"

    def put() -> None:
        body: Any = json.dumps({"name": "Run has failed", "kind": "run_failed", "enabled": True})
        answer = by_rest.put(address, body, content_type="application/json", headers={"if-match": "*"})
        codes.append(answer.status_code)

    def switch() -> None:
        codes.append(by_page.post(f"/f/hearts/settings/rules/{rule.pk}/switch/").status_code)

    for _ in range(ROUNDS):
        at_once(put, switch)

    assert sorted(codes) == [200] * ROUNDS + [302] * ROUNDS


def test_a_member_by_page_and_by_rest(federation: Federation, owner: User) -> None:
    member = add_member(federation, a_user("other"), Role.AUDITOR, owner)
    by_page, by_rest, codes = signed_in(owner), signed_in(owner), []

    def patch() -> None:
        answer = by_rest.patch(
            f"/api/v1/federations/hearts/members/{member.pk}", json.dumps({"role": "operator"}),
            content_type="application/json", headers={"if-match": "*"},
        )  # fmt: skip
        codes.append(answer.status_code)

    def change() -> None:
        codes.append(by_page.post(f"/f/hearts/settings/members/{member.pk}/", {"role": "researcher"}).status_code)

    for _ in range(ROUNDS):
        at_once(patch, change)

    assert sorted(codes) == [200] * ROUNDS + [302] * ROUNDS
