"""What happens to accounts, in the audit log: by signals, so that no way to it is left out (pages, single sign-on, admin, commands)."""

from __future__ import annotations

from typing import Any

from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.signals import authentication_step_completed, password_reset
from allauth.mfa.models import Authenticator
from allauth.socialaccount.signals import social_account_added, social_account_removed
from allauth.usersessions.models import UserSession
from axes.signals import user_locked_out
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver

from fedui.accounts.models import User
from fedui.api.throttles import attempts
from fedui.audit.origin import NOBODY, acting, current_request
from fedui.audit.services import record
from fedui.runs import live

TRACKED = ("username", "email", "first_name", "last_name", "is_active", "is_staff", "is_superuser")
UNKNOWN = "unknown account"
"""Instead of what was typed for a name, which may be a password."""


def _tell(action: str, user: User | None, actor: User | str | None = None, **details: Any) -> None:
    record(None, actor or acting(), f"account.{action}", user.get_username() if user else UNKNOWN, **details)


def _ask_pages_anew(user_id: int) -> None:
    transaction.on_commit(lambda: live.access_changed(user_id), robust=True)


@receiver(pre_save, sender=User)
def _before(instance: User, raw: bool = False, **_: Any) -> None:
    former = User.objects.filter(pk=instance.pk).values(*TRACKED).first() if instance.pk and not raw else None
    instance._former = former  # type: ignore[attr-defined]  # noqa: SLF001  # for the receiver below
    instance._has_new_password = getattr(instance, "_password", None) is not None  # type: ignore[attr-defined]  # noqa: SLF001  # Django sets it when the password was changed, and not when its hash was made anew


@receiver(post_save, sender=User)
def _after(instance: User, created: bool, raw: bool = False, **_: Any) -> None:
    if raw:
        return
    now = {name: getattr(instance, name) for name in TRACKED}
    former = instance._former or {}  # type: ignore[attr-defined]  # noqa: SLF001  # see above
    changed = [name for name in TRACKED if former.get(name) != now[name]]
    if created:
        _tell("created", instance, after={"administrator": instance.is_superuser, "email": instance.email})
    elif changed:
        before = {name: former.get(name) for name in changed}
        _tell("changed", instance, before=before, after={name: now[name] for name in changed})
        _ask_pages_anew(instance.pk)
    if not created and instance._has_new_password:  # type: ignore[attr-defined]  # noqa: SLF001  # see above
        _tell("password_changed", instance)
        _ask_pages_anew(instance.pk)  # those of other sessions have ended


@receiver(user_logged_in)
def _signed_in(user: User, request: Any, **_: Any) -> None:
    records = get_authentication_records(request, user)
    _tell("signed_in", user, user, methods=[method["method"] for method in records])


@receiver(user_logged_out)
def _signed_out(user: User | None, **_: Any) -> None:
    if user is not None and user.is_authenticated:
        _tell("signed_out", user, user)


@receiver(user_login_failed)
def _refused(credentials: dict[str, Any], request: Any = None, **_: Any) -> None:
    """Once a minute for an account and an address: who guesses fills no log."""
    user = User.objects.filter(username=credentials.get("username") or "").first()
    address = request.META.get("REMOTE_ADDR") if request else None
    if attempts(f"sign-in:{user.pk if user else ''}:{address}") == 1:
        _tell("sign_in_refused", user, NOBODY)


@receiver(user_locked_out)
def _locked(username: str, ip_address: str, **_: Any) -> None:
    user = User.objects.filter(username=username).first()
    if user and attempts(f"locked:{user.pk}:{ip_address}") == 1:
        _tell("locked_out", user, NOBODY)


@receiver(post_save, sender=Authenticator)
def _factor_added(instance: Authenticator, created: bool, **_: Any) -> None:
    """Sessions that were opened without the factor end: from now on each of them has passed it."""
    if not created:
        return
    if instance.type == Authenticator.Type.RECOVERY_CODES:
        _tell("recovery_codes_made", instance.user)
        return
    _tell("second_factor_added", instance.user)
    request = current_request()
    end_sessions(instance.user, keep=request.session.session_key if request else None)


@receiver(post_delete, sender=Authenticator)
def _factor_removed(instance: Authenticator, **_: Any) -> None:
    if instance.type != Authenticator.Type.RECOVERY_CODES:
        _tell("second_factor_removed", instance.user)
        _ask_pages_anew(instance.user_id)


@receiver(authentication_step_completed)
def _recovery_code_used(user: User, method: str, **details: Any) -> None:
    if method == "mfa" and details.get("type") == "recovery_codes":
        _tell("recovery_code_used", user, user)


@receiver(password_reset)
def _password_reset(user: User, **_: Any) -> None:
    """The new password is told of when it is saved; other sessions are over."""
    end_sessions(user)


@receiver(social_account_added)
def _linked(sociallogin: Any, **_: Any) -> None:
    _tell("single_sign_on_linked", sociallogin.user, provider=sociallogin.account.provider, uid=sociallogin.account.uid)


@receiver(social_account_removed)
def _unlinked(socialaccount: Any, **_: Any) -> None:
    _tell("single_sign_on_unlinked", socialaccount.user, provider=socialaccount.provider, uid=socialaccount.uid)


@receiver(pre_delete, sender=User)
def _deleted(instance: User, **_: Any) -> None:
    _tell("deleted", instance)


def end_sessions(user: User, *, keep: str | None = None, only: int | None = None) -> int:
    """End the sessions of `user`, one of them (`only`) or all but one (`keep`); open pages are closed too. How many there were."""
    found = [
        session
        for session in UserSession.objects.purge_and_list(user)
        if session.session_key != keep and only in (None, session.pk)
    ]
    for session in found:
        session.end()
    if found:
        _tell("sessions_ended", user, number=len(found))
        _ask_pages_anew(user.pk)
    return len(found)
