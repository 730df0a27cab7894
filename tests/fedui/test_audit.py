"""The audit log is written with the act, or not at all."""

from __future__ import annotations

import pytest
from django.db import transaction

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.audit.services import record
from fedui.clients.services import create_token
from fedui.federations.models import Federation


def test_who_what_to_what_from_where(federation: Federation, owner: User) -> None:
    event = record(federation, owner, "thing.done", federation, address="2001:db8::1", size=3)

    event.refresh_from_db()
    assert (event.federation, event.actor, event.actor_name) == (federation, owner, "owner")
    assert (event.action, event.subject, event.address) == ("thing.done", "Hearts", "2001:db8::1")
    assert event.details == {"size": 3}


def test_what_no_person_did_names_what_did(federation: Federation) -> None:
    event = record(federation, "watchdog", "thing.done", "x" * 500)

    assert (event.actor, event.actor_name) == (None, "watchdog")
    assert len(event.subject) == 200


def test_an_act_that_is_rolled_back_leaves_no_trace(federation: Federation, owner: User) -> None:
    before = AuditEvent.objects.count()

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        create_token(federation, owner)
        raise ZeroDivisionError

    assert AuditEvent.objects.count() == before
