"""Links to reports: made, taken back, and found again by their secret alone."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import record, record_seldom
from fedui.errors import DomainError, ErrorCode
from fedui.reports.models import Naming, Share
from fedui.runs.models import Run

SECRET_BYTES = 32
LONGEST = timedelta(days=90)
MOST_OPEN = 20
"""Of one run, at a time."""


class ShareRefused(DomainError):
    """No such link can be made."""

    code = ErrorCode.INVALID_REQUEST


@transaction.atomic
def share(
    run: Run, actor: User, *, naming: Naming, lifetime: timedelta, note: str = "", address: str | None = None
) -> tuple[Share, str]:
    """A share and its link, which can't be had again. Raises `ShareRefused`."""
    if not timedelta(0) < lifetime <= LONGEST:
        raise ShareRefused(f"A link is good for at most {LONGEST.days} days.", hint="Make another one later.")
    Run.objects.select_for_update().get(pk=run.pk)  # so that two at once don't make one too many
    if run.shares.open().count() >= MOST_OPEN:
        raise ShareRefused(f"The run has {MOST_OPEN} open links already.", hint="Take one back first.")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    made = Share.objects.create(
        run=run, secret_sha256=_hash(secret), naming=naming, note=note, created_by=actor,
        expires_at=timezone.now() + lifetime,
    )  # fmt: skip
    until = made.expires_at.isoformat(timespec="seconds")
    record(
        run.federation, actor, "share.created", made, address=address, run=run.pk, naming=naming.value, until=until, note=note
    )  # fmt: skip
    return made, settings.PUBLIC_URL + reverse("shared-report", args=[secret])


@transaction.atomic
def take_back(made: Share, actor: User, *, address: str | None = None) -> None:
    if Share.objects.open().filter(pk=made.pk).update(revoked_at=timezone.now()):
        record(made.run.federation, actor, "share.revoked", made, address=address, run=made.run_id)


@transaction.atomic
def opened(secret: str, address: str | None = None) -> Share | None:
    """The share of a link that is good, counted as opened; the audit log hears of it once an hour."""
    found = Share.objects.open().select_related("run__federation").filter(secret_sha256=_hash(secret)).first()
    if found is None:
        return None
    Share.objects.filter(pk=found.pk).update(opened=F("opened") + 1, last_opened_at=timezone.now())
    record_seldom(found.run.federation, "link", "share.opened", found, run=found.run_id, address=address)
    return found


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
