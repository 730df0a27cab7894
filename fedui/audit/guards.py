"""What keeps the database from changing the audit log: triggers, on SQLite and on PostgreSQL.

They stop slips and programs, not whoever owns the database: that is what the chain is for.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

ENTRIES, HEAD = "audit_auditevent", "audit_chainhead"
REFUSAL = "the audit log is append-only"

_SQLITE = {
    "audit_no_update": f"BEFORE UPDATE ON {ENTRIES} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    "audit_no_delete": f"BEFORE DELETE ON {ENTRIES} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    "audit_head_stays": f"BEFORE DELETE ON {HEAD} BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
    "audit_head_forward": f"BEFORE UPDATE ON {HEAD} WHEN NEW.number < OLD.number "
    f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END",
}
_FUNCTION = f"""
CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$
"""
_CALL = "EXECUTE FUNCTION audit_append_only()"
_POSTGRES = {
    ("audit_no_change", ENTRIES): f"BEFORE UPDATE OR DELETE ON {ENTRIES} FOR EACH ROW {_CALL}",
    ("audit_no_truncate", ENTRIES): f"BEFORE TRUNCATE ON {ENTRIES} FOR EACH STATEMENT {_CALL}",
    ("audit_head_stays", HEAD): f"BEFORE DELETE ON {HEAD} FOR EACH ROW {_CALL}",
    ("audit_head_no_truncate", HEAD): f"BEFORE TRUNCATE ON {HEAD} FOR EACH STATEMENT {_CALL}",
    ("audit_head_forward", HEAD): f"BEFORE UPDATE ON {HEAD} FOR EACH ROW WHEN (NEW.number < OLD.number) {_CALL}",
}


def install(connection: BaseDatabaseWrapper) -> None:
    """Put the triggers up; those that are there are put up anew."""
    remove(connection)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(_FUNCTION)
            for (name, _), rest in _POSTGRES.items():
                cursor.execute(f"CREATE TRIGGER {name} {rest}")
        else:
            for name, rest in _SQLITE.items():
                cursor.execute(f"CREATE TRIGGER {name} {rest}")


def remove(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            for name, table in _POSTGRES:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")
        else:
            for name in _SQLITE:
                cursor.execute(f"DROP TRIGGER IF EXISTS {name}")


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Names of the triggers that should be there and are not, or are switched off."""
    if connection.vendor == "postgresql":
        query = "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D' AND NOT tgisinternal"
        wanted = {name for name, _ in _POSTGRES}
    else:
        query, wanted = "SELECT name FROM sqlite_master WHERE type = 'trigger'", set(_SQLITE)
    with connection.cursor() as cursor:
        cursor.execute(query)
        return sorted(wanted - {row[0] for row in cursor.fetchall()})


def install_after(sender: Any, using: str, **_: Any) -> None:
    """After every `migrate`: SQLite makes tables anew when their columns change, and drops what hung on them."""
    from django.db import connections

    connection = connections[using]
    if ENTRIES in (tables := connection.introspection.table_names()) and HEAD in tables and missing(connection):
        install(connection)
