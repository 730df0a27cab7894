"""Entries from before the chain are put into it, in their order, and guarded."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from fedui.accounts.models import User
from fedui.audit import guards
from fedui.audit.models import AuditEvent
from fedui.audit.services import record, verify_log
from fedui.federations.models import Federation
from tests.support.domain import a_federation, a_user

BEFORE, NOW = [("audit", "0001_initial")], [("audit", "0003_append_only")]


def _write(old: Any, federation: Federation, owner: User) -> None:
    for number, details in enumerate(({"share": 1e-7}, {"nested": {"a": [1, 2.0]}}, {}), start=100):
        old.objects.create(
            pk=number, federation_id=federation.pk, actor_id=owner.pk, actor_name="owner", action="thing.done", subject="x",
            address="2001:DB8::1", details=details,
        )  # fmt: skip


@pytest.mark.django_db(transaction=True)
def test_old_entries_are_chained() -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    executor = MigrationExecutor(connection)
    executor.migrate(BEFORE)
    try:
        old = executor.loader.project_state(BEFORE).apps.get_model("audit", "AuditEvent")
        _write(old, federation, owner)
    finally:
        MigrationExecutor(connection).migrate(NOW)

    assert AuditEvent.objects.filter(action="thing.done").count() == 3
    assert verify_log().faults == ()
    assert guards.missing(connection) == []
    record(federation, owner, "thing.done", "next")
    assert verify_log().whole
