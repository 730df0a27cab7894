"""Acts that happen at once are put in order by the head of the chain, and none waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from django.db import transaction

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.audit.services import record, verify_log
from fedui.clients.models import Client
from fedui.clients.services import create_token, reinstate_client, suspend_client
from fedui.errors import DomainError
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member
from tests.support.at_once import at_once
from tests.support.domain import a_client, a_federation, a_user

ROUNDS = 6


@pytest.fixture
def federation(transactional_db: None) -> Federation:
    return a_federation("hearts", a_user("owner"))


def test_acts_at_once_make_one_chain_without_a_gap(federation: Federation) -> None:
    owner, other, client = User.objects.get(), a_user("other"), a_client(federation, "hosp-1")

    def change_of_heart() -> None:
        with transaction.atomic():
            record(federation, owner, "thing.done", "never was")
            transaction.set_rollback(True)

    def suspend_and_reinstate() -> None:
        for act in (suspend_client, reinstate_client):
            with suppress(DomainError):  # the other thread was first
                act(Client.objects.get(pk=client.pk), owner)

    acts: list[Callable[[], object]] = [
        lambda: create_token(federation, owner),
        lambda: add_member(federation, other, Role.AUDITOR, owner),
        lambda: a_client(federation),
        suspend_and_reinstate,
        suspend_and_reinstate,
        change_of_heart,
    ]
    for _ in range(ROUNDS):
        at_once(*acts)

    numbers = list(AuditEvent.objects.order_by("id").values_list("id", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    assert not AuditEvent.objects.filter(subject="never was").exists()
    assert verify_log().faults == ()
