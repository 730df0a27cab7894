"""The one way to write the audit log. Call it in the transaction of the act: neither exists without the other."""

from __future__ import annotations

from typing import Any

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.federations.models import Federation

SUBJECT_LENGTH = 200


def record(
    federation: Federation | None,
    actor: User | str,
    action: str,
    subject: object,
    *,
    address: str | None = None,
    **details: Any,
) -> AuditEvent:
    """Note that `actor` (a person, or the name of what acted where nobody did) has done `action` to `subject`.

    `details` are kept as JSON and shown to auditors: never put a secret there.
    """
    person = actor if isinstance(actor, User) else None
    return AuditEvent.objects.create(
        federation=federation,
        actor=person,
        actor_name=person.get_username() if person else str(actor),
        address=address,
        action=action,
        subject=str(subject)[:SUBJECT_LENGTH],
        details=details,
    )
