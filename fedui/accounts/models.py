from __future__ import annotations

from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import transaction


class User(AbstractUser):
    """A person who signs in. Rights come from memberships of federations, not from here.

    `is_superuser` makes an installation administrator, who looks after accounts and reads the installation's audit log. It opens no
    federation.
    """

    def save(self, *args: Any, **kwargs: Any) -> None:
        """In one transaction with what the audit log tells of it (`fedui.accounts.trail`)."""
        with transaction.atomic():
            super().save(*args, **kwargs)

    def has_second_factor(self) -> bool:
        """Whether nobody signs in to this account without one."""
        return self.has_factor_of_provider() or bool(with_second_factor([self.pk]))

    def has_factor_of_provider(self) -> bool:
        """Whether the single sign-on is the only way in, and asks for a second factor."""
        by_provider = settings.OIDC_SECOND_FACTOR and not self.has_usable_password()
        return bool(by_provider) and SocialAccount.objects.filter(user=self).exists()


def with_second_factor(user_ids: list[int]) -> set[int]:
    """Those of the accounts that have an authenticator."""
    found = Authenticator.objects.filter(user__in=user_ids, type=Authenticator.Type.TOTP)
    return set(found.values_list("user_id", flat=True))
