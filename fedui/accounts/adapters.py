"""What we decide for django-allauth."""

from __future__ import annotations

import time
from typing import Any

from allauth.account import app_settings
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest

from fedui.federations.invitations import invited
from fedui.sealing import seal, unseal

QUIET = frozenset({messages.SUCCESS, messages.INFO})
_PURPOSE = "fedui.mfa"


class AccountAdapter(DefaultAccountAdapter):
    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": "Account or password is wrong. Both know small letters from capitals.",
        "too_many_login_attempts": "Too many tries with this account from your address. Wait five minutes.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Accounts come by invitation (`fedui.federations.invitations`), single sign-on or the command line."""
        return False

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Failures count for an account and an address together: nobody can lock somebody else out."""
        return f"{super()._get_login_attempts_cache_key(request, **credentials)}:{request.META.get('REMOTE_ADDR')}"

    def is_reauthentication_required(self, *, app: str) -> bool:
        """Not within minutes of the sign-in: for those who have no password here it is the only way to show who they are."""
        records = get_authentication_records(context.request, context.request.user)
        age = time.time() - records[-1]["at"] if records else float("inf")
        return age > app_settings.REAUTHENTICATION_TIMEOUT and super().is_reauthentication_required(app=app)

    def add_message(self, request: HttpRequest, level: int, *args: Any, **kwargs: Any) -> None:
        """Only what went wrong: that somebody is signed in they see."""
        if level not in QUIET:
            super().add_message(request, level, *args, **kwargs)


class SingleSignOnAdapter(DefaultSocialAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """For everybody whom the provider knows, or for those who follow an invitation."""
        return bool(settings.OIDC_SIGNUP) or invited(request)


class SecondFactorAdapter(DefaultMFAAdapter):
    """Keeps the secrets of authenticators encrypted by the installation's secret key."""

    def encrypt(self, text: str) -> str:
        return seal(text, _PURPOSE)

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(encrypted_text, _PURPOSE)
