"""How API keys come to be, are checked, and end."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Membership
from fedui.keys.models import ApiKey
from fedui.keys.scopes import SCOPE_OF, Scope
from fedui.keys.text import KeyText

MAX_LIFETIME = timedelta(days=366)
MAX_KEYS = 50
"""Usable ones of one member in one federation."""


class KeyRefused(DomainError):
    """A key that may not be made so."""

    code = ErrorCode.API_KEY_REFUSED


@transaction.atomic
def create_key(
    membership: Membership,
    *,
    name: str,
    scopes: Collection[Scope],
    lifetime: timedelta,
    by: ApiKey | None = None,
    address: str | None = None,
) -> tuple[ApiKey, str]:
    """A key that acts as the member, and its text, which can't be had again. With `by`, a key makes it. Raises `KeyRefused`."""
    _check(membership, scopes, lifetime)
    expires_at = timezone.now() + lifetime
    if by is not None:
        _check_maker(by, scopes)
        expires_at = min(expires_at, by.expires_at)
    text = KeyText.new()
    key = ApiKey.objects.create(
        federation=membership.federation,
        user=membership.user,
        name=name,
        key_id=text.key_id,
        secret_sha256=text.secret_sha256,
        scopes=sorted(scope.value for scope in scopes),
        expires_at=expires_at,
    )
    until = expires_at.isoformat(timespec="seconds")
    record(key.federation, key.user, "key.created", key, address=address, scopes=key.scopes, until=until)
    return key, str(text)


@transaction.atomic
def revoke_key(key: ApiKey, actor: User, *, address: str | None = None) -> None:
    """It opens nothing from now on. Again changes nothing."""
    if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
        record(key.federation, actor, "key.revoked", key, address=address, of=key.user.get_username())
    key.refresh_from_db()


def find_key(text: str) -> ApiKey | None:
    """The usable key of this text. An unknown one takes as long as a wrong one."""
    parsed = KeyText.parse(text)
    if parsed is None:
        return None
    key = ApiKey.objects.usable().select_related("user", "federation").filter(key_id=parsed.key_id).first()
    expected = key.secret_sha256 if key else "0" * 64
    return key if hmac.compare_digest(parsed.secret_sha256, expected) else None


def scopes_of(membership: Membership) -> list[Scope]:
    """Those that are of any use to the member."""
    useful = {scope for act, scope in SCOPE_OF.items() if membership.may(act)}
    return [scope for scope in Scope if scope in useful]


def _check(membership: Membership, scopes: Collection[Scope], lifetime: timedelta) -> None:
    if not scopes:
        raise KeyRefused("A key without a scope opens nothing.", hint="Choose at least one.")
    if useless := [scope.value for scope in scopes if scope not in scopes_of(membership)]:
        role = membership.get_role_display().lower()
        raise KeyRefused(f"The role {role} has no use for {', '.join(useless)}.", hint="Leave these scopes out.")
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise KeyRefused("A key lives 1 to 366 days.", hint="Choose a shorter life, and make a new key in time.")
    if ApiKey.objects.usable().filter(user=membership.user, federation=membership.federation).count() >= MAX_KEYS:
        raise KeyRefused(f"You have {MAX_KEYS} keys here.", hint="Revoke those that nothing uses any more.")


def _check_maker(by: ApiKey, scopes: Collection[Scope]) -> None:
    if more := [scope.value for scope in scopes if scope not in by.scopes]:
        raise KeyRefused(f"{by} lacks {', '.join(more)} itself.", hint="A key makes keys that may no more than it may.")
