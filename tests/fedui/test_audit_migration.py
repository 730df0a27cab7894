"""Entries from before the chain are put into it, in their order, and guarded."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from fedui.audit import guards
from fedui.audit.models import AuditEvent
from fedui.audit.services import record, verify_log
from tests.support.domain import a_federation, a_user

BEFORE, NOW = [("audit", "0001_initial")], [("audit", "0003_append_only")]


@pytest.mark.django_db(transaction=True)
def test_old_entries_are_chained() -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    executor = MigrationExecutor(connection)
    executor.migrate(BEFORE)
    old = executor.loader.project_state(BEFORE).apps.get_model("audit", "AuditEvent")
    for details in ({"share": 1e-7}, {"nested": {"a": [1, 2.0]}}, {}):
        old.objects.create(
            federation_id=federation.pk, actor_id=owner.pk, actor_name="owner", action="thing.done", subject="x", address="2001:DB8::1",
            details=details,
        )  # fmt: skip
    MigrationExecutor(connection).migrate(NOW)

    assert AuditEvent.objects.filter(action="thing.done").count() == 3
    assert verify_log().faults == ()
    assert guards.missing(connection) == []
    record(federation, owner, "thing.done", "next")
    assert verify_log().whole
