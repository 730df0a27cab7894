"""What each connection to PostgreSQL is told."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper


def limit_idle_transactions(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
    """A process that is frozen, or cut off, in the middle of a transaction would keep its locks for as long as its connection lives."""
    if connection.vendor == "postgresql":
        milliseconds = round(settings.IDLE_IN_TRANSACTION_SECONDS * 1000)
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", [str(milliseconds)])
