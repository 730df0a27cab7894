"""The one way to write the audit log. Call it in the transaction of the act: neither exists without the other."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac

from fedui.accounts.models import User
from fedui.audit import chain, guards, origin
from fedui.audit.models import AuditEvent, ChainCheck, ChainHead
from fedui.federations.models import Federation

logger = logging.getLogger(__name__)

SUBJECT_LENGTH = 200
CHECKS_KEPT = timedelta(days=400)
SELDOM = timedelta(hours=1)
_ONE = 1
"""Key of the one row of `ChainHead`."""
_READ_AT_ONCE = 2000


@transaction.atomic
def record(
    federation: Federation | None,
    actor: User | str,
    action: str,
    subject: object,
    *,
    address: str | None = None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    **details: Any,
) -> AuditEvent:
    """Note that `actor` (a person, or the name of what acted where nobody did) has done `action` to `subject`.

    `before` and `after` hold what the act has changed; `details` what else there is to know. All are kept as JSON and shown to
    auditors: never put a secret there.

    Let it be the last that the transaction writes. It locks the head of the chain until the transaction ends: others that
    write entries wait so long, and one that then waits for a row which they hold would wait for ever.
    """
    person = actor if isinstance(actor, User) else None
    if key := origin.current_api_key():
        details["api_key"] = key
    head = _locked_head()
    entry = AuditEvent(
        id=head.number + 1,
        federation=federation,
        at=timezone.now(),
        actor=person,
        actor_name=chain.text(person.get_username() if person else actor)[:150],
        address=chain.address(address or origin.current_address()),
        via=origin.via(actor),
        action=action,
        subject=chain.text(subject)[:SUBJECT_LENGTH],
        details=chain.settled(details),
        before=None if before is None else chain.settled(before),
        after=None if after is None else chain.settled(after),
        nonce=secrets.token_hex(16),
        previous_hash=head.hash,
    )
    entry.hash = chain.entry_hash(entry.content())
    entry.save(force_insert=True)
    _advance(head, entry)
    return entry


def record_seldom(
    federation: Federation,
    actor: User | str,
    action: str,
    subject: object,
    *,
    every: timedelta = SELDOM,
    **details: Any,
) -> None:
    """The same, unless it was recorded less than `every` ago: for what a peer may do again and again, and so fill the log."""
    known = AuditEvent.objects.filter(
        federation=federation, action=action, subject=chain.text(subject)[:SUBJECT_LENGTH]
    )
    if not known.filter(at__gt=timezone.now() - every).exists():
        record(federation, actor, action, subject, **details)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`before` and `after` for `record`: what differs, by dotted path."""
    old, new = _flat(before), _flat(after)
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {
        "before": {name: old[name] for name in changed if name in old},
        "after": {name: new[name] for name in changed if name in new},
    }


def _flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return flat


def _locked_head() -> ChainHead:
    """The head, locked until the transaction ends; the first of an empty log. Of two that make it, one waits for the other."""
    head, _ = ChainHead.objects.select_for_update().get_or_create(
        pk=_ONE, defaults={"seal": seal_of(0, chain.GENESIS)} if not AuditEvent.objects.exists() else _unsealed()
    )
    return head


def _unsealed() -> dict[str, Any]:
    """For a head that somebody has removed: the log goes on, and its seal stays broken until somebody has looked."""
    last = AuditEvent.objects.order_by("id").last()
    assert last
    return {"number": last.pk, "hash": last.hash, "seal": ""}


def _advance(head: ChainHead, entry: AuditEvent) -> None:
    # A broken seal stays broken: the next entry must not mend what somebody has done to the log.
    intact = is_sealed(head)
    head.number, head.hash = entry.pk, entry.hash
    head.seal = seal_of(head.number, head.hash) if intact else ""
    head.save()


def seal_of(number: int, entry_hash: str, key: str | None = None) -> str:
    """The keyed hash of a head, by the installation's secret key."""
    return salted_hmac("fedui.audit.head", f"{number}:{entry_hash}", secret=key, algorithm="sha256").hexdigest()


def is_sealed(head: ChainHead) -> bool:
    """Whether this installation has written the head as it stands, under its present key or a former one."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(constant_time_compare(head.seal, seal_of(head.number, head.hash, key)) for key in keys)


def head_of_chain() -> ChainHead:
    """The head as it is now, of an empty log too."""
    return ChainHead.objects.filter(pk=_ONE).first() or ChainHead(seal=seal_of(0, chain.GENESIS))


def entries(after: int = 0) -> Iterator[AuditEvent]:
    """All entries that follow number `after`, the oldest first, a few thousand in memory at a time."""
    return AuditEvent.objects.filter(pk__gt=after).order_by("id").iterator(chunk_size=_READ_AT_ONCE)


def exported_lines(found: Iterable[AuditEvent], only: Federation | None = None) -> Iterator[str]:
    """JSON Lines, with all that the chain is verified by. With `only`, the content of other entries is withheld."""
    for entry in found:
        shown = entry.exported()
        if only and entry.federation_id != only.pk:
            shown = {name: shown[name] for name in chain.WITHHELD}
        yield json.dumps(shown, sort_keys=True) + "\n"


def has_entry(number: int, entry_hash: str) -> bool:
    return AuditEvent.objects.filter(pk=number, hash=entry_hash).exists()


def verify_log() -> chain.Verdict:
    """The whole log against its hashes, its head and the head's seal, and whether the database guards it.

    Acts go on meanwhile: what they add is read too, until the head is that of the last entry.
    """
    verdict, read = chain.verify(_exported()), -1
    head = head_of_chain()
    while head.number > verdict.number and verdict.entries > read:
        read = verdict.entries
        verdict = chain.verify(_exported(verdict.number), verdict)
        head = head_of_chain()
    return verdict.with_faults(_faults_of_head(head, verdict))


def _exported(after: int = 0) -> Iterator[dict[str, Any]]:
    return (entry.exported() for entry in entries(after))


def _faults_of_head(head: ChainHead, verdict: chain.Verdict) -> Iterator[chain.Fault]:
    if (head.number, head.hash) != (verdict.number, verdict.head):
        yield chain.Fault(
            head.number,
            f"the log should end here, but ends at entry {verdict.number}: entries were removed or added at its end.",
        )
    if not is_sealed(head):
        yield chain.Fault(
            head.number,
            "the head's seal isn't this installation's: the head was written by somebody else, or the secret key is another.",
        )
    if absent := guards.missing(connection):
        yield chain.Fault(head.number, f"the database's guard is off: {', '.join(absent)}.")


def check_log() -> ChainCheck:
    """Verify the log and keep the outcome, for the pages to show."""
    verdict = verify_log()
    if not verdict.whole:
        logger.error("The audit log is not as it was written: %s", "; ".join(map(str, verdict.faults)))
    faults = [str(fault) for fault in verdict.faults]
    ChainCheck.objects.filter(at__lt=timezone.now() - CHECKS_KEPT).delete()
    return ChainCheck.objects.create(number=verdict.number, head=verdict.head, entries=verdict.entries, faults=faults)


@transaction.atomic
def reseal(actor: User | str, reason: str) -> AuditEvent:
    """Seal the head again, once somebody has looked into why its seal was broken. The log tells of it for ever."""
    verdict = verify_log()
    faults = [str(fault) for fault in verdict.faults]
    record(None, actor, "audit.resealed", "audit log", reason=reason, faults=faults)
    head = _locked_head()
    head.seal = seal_of(head.number, head.hash)
    head.save(update_fields=["seal"])
    return AuditEvent.objects.get(pk=head.number)
