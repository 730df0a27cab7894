from __future__ import annotations

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth.models import AbstractUser


class User(AbstractUser):
    """A person who signs in. Rights come from memberships of federations, not from here.

    `is_superuser` makes an installation administrator, who looks after accounts and reads the installation's audit log. It opens no
    federation.
    """

    def has_second_factor(self) -> bool:
        """Whether nobody signs in to this account without one: ours, or the one that the single sign-on asks for."""
        if Authenticator.objects.filter(user=self, type=Authenticator.Type.TOTP).exists():
            return True
        by_provider = settings.OIDC_SECOND_FACTOR and not self.has_usable_password()
        return bool(by_provider) and SocialAccount.objects.filter(user=self).exists()


def with_second_factor(user_ids: list[int]) -> set[int]:
    """Those of the accounts that have an authenticator."""
    found = Authenticator.objects.filter(user__in=user_ids, type=Authenticator.Type.TOTP)
    return set(found.values_list("user_id", flat=True))
