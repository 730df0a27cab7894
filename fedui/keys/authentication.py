"""`Authorization: Bearer fedk_…`"""

from __future__ import annotations

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request

from fedui.accounts.models import User
from fedui.api.throttles import attempts
from fedui.audit.services import record
from fedui.keys.models import ApiKey
from fedui.keys.services import find_key

WRONG_PER_MINUTE = 30
"""From one address; what comes after is told so. A right key is taken anyway: 256 bits are not guessed."""


class KeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        scheme, _, text = get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = find_key(text.strip())
        if key is None:
            _note_wrong(request)
            raise AuthenticationFailed("This API key is not good: unknown, mistyped, expired or revoked.")
        key.touch()
        request._request.api_key = key  # type: ignore[attr-defined]  # noqa: SLF001  # for the audit log
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="FedUI"'


def _note_wrong(request: Request) -> None:
    address = request.META.get("REMOTE_ADDR") or None
    number = attempts(f"wrong-key:{address}")
    if number == WRONG_PER_MINUTE + 1:  # once a minute: an attacker fills no log
        record(None, "somebody", "key.throttled", address or "unknown address", address=address)
    if number > WRONG_PER_MINUTE:
        raise Throttled
