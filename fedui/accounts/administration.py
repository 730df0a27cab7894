"""What an installation administrator does to accounts. Saving an account tells the audit log of what has changed (`trail`)."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from axes.utils import reset
from django.conf import settings
from django.db import transaction

from fedui.accounts.models import User
from fedui.accounts.trail import end_sessions
from fedui.audit.services import record
from fedui.errors import DomainError, ErrorCode


class LastAdministrator(DomainError):
    """Without one nobody could look after accounts."""

    code = ErrorCode.LAST_OWNER

    def __init__(self) -> None:
        super().__init__("This is the last installation administrator.", hint="Make somebody else one first.")


def lacks_second_factor(user: User) -> bool:
    """Administrators count as managers."""
    return settings.SECOND_FACTOR != "nobody" and not user.has_second_factor()


@transaction.atomic
def deactivate(user: User, actor: User) -> None:
    """Raises `LastAdministrator`."""
    _keep_an_administrator(user)
    end_sessions(user)
    _change(user, is_active=False)


def activate(user: User, actor: User) -> None:
    _change(user, is_active=True)


def promote(user: User, actor: User) -> None:
    _change(user, is_superuser=True, is_staff=True)


@transaction.atomic
def demote(user: User, actor: User) -> None:
    """Raises `LastAdministrator`."""
    _keep_an_administrator(user)
    _change(user, is_superuser=False, is_staff=False)


@transaction.atomic
def reset_second_factor(user: User, actor: User) -> None:
    """For somebody who has lost the device and the recovery codes."""
    Authenticator.objects.filter(user=user).delete()
    end_sessions(user)


def unlock(user: User, actor: User) -> None:
    reset(username=user.get_username())
    record(None, actor, "account.unlocked", user.get_username())


def _change(user: User, **fields: bool) -> None:
    for name, value in fields.items():
        setattr(user, name, value)
    user.save(update_fields=list(fields))


def _keep_an_administrator(user: User) -> None:
    """Locks all of them in one order, so that two can't go at once."""
    administrators = User.objects.filter(is_superuser=True, is_active=True).order_by("pk")
    there = list(administrators.select_for_update(no_key=True).values_list("pk", flat=True))
    if there == [user.pk]:
        raise LastAdministrator
