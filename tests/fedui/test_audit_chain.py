"""The audit log is a chain: what is changed, removed, inserted or cut off is found, on the database and in an export."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from pytest_django import Settings

from fedui.accounts.models import User
from fedui.audit import chain, guards
from fedui.audit.models import AuditEvent, ChainHead
from fedui.audit.services import entries, exported_lines, head_of_chain, record, verify_log
from fedui.clients.services import create_token
from fedui.federations.models import Federation

EDITS = 1000
TABLE = "audit_auditevent"


@pytest.fixture
def log(federation: Federation, owner: User) -> list[AuditEvent]:
    for number in range(12):
        change: dict[str, Any] = {"before": {"a": number}, "after": {"a": number + 1.5}} if number % 2 else {}
        record(
            federation,
            owner if number % 3 else "engine",
            "thing.done",
            f"thing {number}",
            address="192.0.2.1",
            n=number,
            **change,
        )
    return list(entries())


@pytest.fixture
def unguarded(db: None) -> None:
    guards.remove(connection)


@pytest.fixture
def unnoticed(unguarded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without guards, and nobody says so: else no log would be whole, whatever became of its entries."""
    monkeypatch.setattr(guards, "missing", lambda connection: [])


def test_a_log_that_nobody_touched_is_whole(log: list[AuditEvent]) -> None:
    verdict = verify_log()

    assert verdict.faults == ()
    assert (verdict.number, verdict.head, verdict.entries) == (log[-1].pk, log[-1].hash, len(log))


def test_an_act_that_is_rolled_back_leaves_no_gap(log: list[AuditEvent], federation: Federation, owner: User) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        create_token(federation, owner)
        raise ZeroDivisionError

    assert record(federation, owner, "thing.done", "next").pk == log[-1].pk + 1
    assert verify_log().whole


@pytest.mark.parametrize("seed", range(4))
def test_every_edit_of_the_stored_chain_is_found(
    log: list[AuditEvent], unnoticed: None, seed: int, record_property: Callable[[str, object], None]
) -> None:
    """By `manage.py audit verify`, which says of the log as it was that it is whole."""
    dice, found = random.Random(seed), 0
    for _ in range(EDITS // 4):
        with transaction.atomic():
            what = _edit(dice)
            found += (whole := _is_whole()) is False
            transaction.set_rollback(True)
        assert not whole, what
    assert _is_whole()
    record_property("edits_found", found)


def _is_whole() -> bool:
    try:
        call_command("audit", "verify", stdout=StringIO(), stderr=StringIO())
    except CommandError:
        return False
    return True


def _edit(dice: random.Random) -> str:
    """Change the table at random, as somebody with the database's password would."""
    rows: list[dict[str, Any]] = [dict(row) for row in AuditEvent.objects.order_by("id").values()]
    edit: Callable[[random.Random, list[dict[str, Any]]], str] = dice.choice(
        [_change, _delete, _insert, _swap, _duplicate]
    )
    return edit(dice, rows)


def _change(dice: random.Random, rows: list[dict[str, Any]]) -> str:
    row, column = dice.choice(rows), dice.choice(list(rows[0]))
    value = _other(dice, row[column], column)
    AuditEvent.objects.filter(pk=row["id"]).update(**{column: value})
    return f"{column} of {row['id']} became {value!r}"


def _other(dice: random.Random, value: Any, column: str) -> Any:
    match column:
        case "id":
            return 1_000 + dice.randrange(1_000)
        case "federation_id":
            return None if value else Federation.objects.values_list("pk", flat=True).get()
        case "actor_id":
            return None if value else User.objects.values_list("pk", flat=True).first()
        case "at":
            return value.replace(microsecond=(value.microsecond + dice.randrange(1, 10**6)) % 10**6)
        case "details" | "before" | "after":
            return {"n": dice.random()} if dice.random() < 0.5 or not value else {**value, "extra": dice.random()}
        case "address":
            return "192.0.2.9" if value != "192.0.2.9" and dice.random() < 0.5 else ("2001:db8::2" if value else "::1")
        case "via":
            return "web" if value != "web" else "api"
        case "nonce":
            return f"{dice.getrandbits(128):032x}"
        case "hash" | "previous_hash":
            return f"{dice.getrandbits(256):064x}"
    return str(value) + "x"


def _delete(dice: random.Random, rows: list[dict[str, Any]]) -> str:
    """Some at the end, one anywhere, or all."""
    first = dice.randrange(len(rows))
    last = len(rows) if dice.random() < 0.4 else first + 1
    AuditEvent.objects.filter(pk__in=[row["id"] for row in rows[first:last]]).delete()
    return f"{first} to {last} deleted"


def _insert(dice: random.Random, rows: list[dict[str, Any]]) -> str:
    """A well-made entry, with hashes that fit what is before it."""
    row = dice.choice(rows)
    number = rows[-1]["id"] + 1 if dice.random() < 0.5 else 1_000 + dice.randrange(1_000)
    entry = AuditEvent(**{**row, "id": number, "subject": "forged", "previous_hash": rows[-1]["hash"]})
    entry.hash = chain.entry_hash(entry.content())
    entry.save(force_insert=True)
    return f"inserted as {number}"


def _swap(dice: random.Random, rows: list[dict[str, Any]]) -> str:
    a, b = dice.sample(rows, 2)
    columns = [name for name in a if name != "id"]
    AuditEvent.objects.filter(pk=a["id"]).update(**{name: b[name] for name in columns})
    AuditEvent.objects.filter(pk=b["id"]).update(**{name: a[name] for name in columns})
    return f"{a['id']} and {b['id']} swapped"


def _duplicate(dice: random.Random, rows: list[dict[str, Any]]) -> str:
    row = dice.choice(rows)
    AuditEvent.objects.create(**{**row, "id": rows[-1]["id"] + 1 + dice.randrange(3)})
    return f"{row['id']} duplicated"


def test_who_rewrites_the_whole_chain_can_not_seal_it(
    log: list[AuditEvent], unguarded: None, settings: Settings
) -> None:
    AuditEvent.objects.all().delete()
    previous = chain.GENESIS
    for entry in log[:-3]:
        entry.subject, entry.previous_hash = "forged", previous
        previous = entry.hash = chain.entry_hash(entry.content())
        entry.save(force_insert=True)
    head = ChainHead.objects.get()
    head.number, head.hash = log[-4].pk, previous
    head.save()

    assert [fault.what for fault in verify_log().faults if "seal" in fault.what]


def test_a_broken_seal_is_not_mended_by_the_next_entry(
    log: list[AuditEvent], federation: Federation, unnoticed: None
) -> None:
    AuditEvent.objects.filter(pk=log[-1].pk).delete()
    ChainHead.objects.update(number=log[-2].pk, hash=log[-2].hash)
    record(federation, "engine", "thing.done", "next")

    assert not _is_whole()
    call_command("audit", "reseal", reason="The disk was restored from a backup.", stdout=StringIO())
    assert _is_whole()
    resealed = AuditEvent.objects.get(action="audit.resealed")
    assert any("seal" in fault for fault in resealed.details["faults"])


def test_a_head_that_was_removed_is_noticed(log: list[AuditEvent], federation: Federation, unnoticed: None) -> None:
    ChainHead.objects.all().delete()
    assert not _is_whole()

    record(federation, "engine", "thing.done", "next")
    assert not _is_whole()


def test_another_secret_key_is_noticed_unless_the_old_one_is_kept(log: list[AuditEvent], settings: Settings) -> None:
    former, settings.SECRET_KEY = settings.SECRET_KEY, "another"
    assert not verify_log().whole

    settings.SECRET_KEY_FALLBACKS = [former]
    assert verify_log().whole


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {TABLE} SET subject = 'x'",
        f"DELETE FROM {TABLE}",
        "DELETE FROM audit_chainhead",
        "UPDATE audit_chainhead SET number = number - 1",
    ],
)
def test_the_database_refuses_to_change_the_log(log: list[AuditEvent], statement: str) -> None:
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)

    assert verify_log().whole


def test_a_missing_guard_is_told(log: list[AuditEvent], unguarded: None) -> None:
    assert "guard" in str(verify_log().faults[0])


def test_the_log_outlives_its_federation(log: list[AuditEvent], federation: Federation) -> None:
    key = federation.pk
    federation.delete()

    assert AuditEvent.objects.filter(federation_id=key).count() == len([e for e in log if e.federation_id == key])
    assert verify_log().whole


def test_an_export_is_verified_without_the_database(log: list[AuditEvent], tmp_path: Path) -> None:
    file, head = tmp_path / "audit.jsonl", str(head_of_chain())
    call_command("audit", "export", output=str(file))

    out = StringIO()
    call_command("audit", "verify", str(file), head=head, stdout=out)
    assert f"{len(log)} entries" in out.getvalue()

    lines = file.read_text().splitlines()
    for spoilt in (lines[1:], lines[:3] + lines[4:], [lines[1], lines[0], *lines[2:]], lines[:-1]):
        file.write_text("\n".join(spoilt))
        with pytest.raises(CommandError):
            call_command("audit", "verify", str(file), head=head, stderr=StringIO())


def test_a_noted_head_finds_a_log_that_was_cut_and_sealed_anew(log: list[AuditEvent], unguarded: None) -> None:
    noted = str(head_of_chain())
    AuditEvent.objects.filter(pk=log[-1].pk).delete()
    ChainHead.objects.update(number=log[-2].pk, hash=log[-2].hash)
    call_command("audit", "reseal", reason="none", stdout=StringIO())
    guards.install(connection)

    assert verify_log().whole
    with pytest.raises(CommandError):
        call_command("audit", "verify", head=noted, stderr=StringIO())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class WhateverIsRecordedComesBackTheSame(TestCase):
    @given(
        details=st.dictionaries(st.sampled_from(["a", "b"]), JSON),
        subject=st.text(max_size=300),
        address=st.ip_addresses(),
    )
    def test_it(self, details: dict[str, Any], subject: str, address: object) -> None:
        record(None, "engine", "thing.done", subject, address=str(address), after=details, **details)

        assert [json.loads(line) for line in exported_lines(entries())]
        assert verify_log().whole
