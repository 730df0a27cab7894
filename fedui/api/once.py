"""`Idempotency-Key`: an unsafe call that is sent twice has one effect, and the second is answered as the first was.

The key's row, the act and its answer are written in one transaction. Of two at once the second waits at the row; and a call that fails,
or whose process dies, leaves nothing behind, so that the key is free to try again.

What is stored is encrypted. The key to it is derived from the installation's secret and the `Idempotency-Key`, of which only a hash is
kept: a token or an API key that is shown once can be shown again to who repeats the call, and to nobody who reads the database.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import wraps
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.models import StoredAnswer
from fedui.errors import DomainError, ErrorCode

HEADER = "Idempotency-Key"
PATTERN = r"^[\x21-\x7e]{16,255}$"
LIFE = timedelta(hours=24)
KEPT_HEADERS = ("Location", "ETag")
Handler = Callable[..., Response]


class KeyOfAnotherRequest(DomainError):
    """The `Idempotency-Key` was used for something else."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT


def once(handler: Handler) -> Handler:
    """The handler of an unsafe method, in one transaction; and once an `Idempotency-Key`, where the call has one."""

    @wraps(handler)
    def guarded(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        with transaction.atomic():
            if key is None:
                return handler(view, request, *args, **kwargs)
            return _once(_checked(key), request, lambda: handler(view, request, *args, **kwargs))

    return guarded


def actor_of(request: Request) -> str:
    """Whose keys they are: those of two API keys of one account are apart."""
    return f"key:{request.auth.pk}" if request.auth is not None else f"user:{request.user.pk}"


def forget_expired() -> int:
    """How many answers were forgotten."""
    return StoredAnswer.objects.filter(expires_at__lte=timezone.now()).delete()[0]


def _checked(key: str) -> str:
    if not re.fullmatch(PATTERN, key):
        raise ValidationError({HEADER: ["16 to 255 visible ASCII characters: a random UUID, say."]})
    return key


def _once(key: str, request: Request, act: Callable[[], Response]) -> Response:
    actor, now = actor_of(request), timezone.now()
    mine = StoredAnswer.objects.filter(actor=actor, key_hash=hashlib.sha256(key.encode()).hexdigest())
    mine.filter(expires_at__lte=now).delete()
    stored, is_new = mine.get_or_create(
        actor=actor,
        key_hash=hashlib.sha256(key.encode()).hexdigest(),
        defaults={"request_hash": _request_hash(key, request), "expires_at": now + LIFE},
    )
    if not is_new:
        return _replayed(stored, key, request)
    response = act()
    stored.answer = _cipher(key, actor).encrypt(JSONRenderer().render(_kept(response)))
    stored.save(update_fields=["answer"])
    return response


def _request_hash(key: str, request: Request) -> str:
    said = json.dumps([request.method, request.get_full_path(), request.data], sort_keys=True, default=str)
    return hmac.new(key.encode(), said.encode(), hashlib.sha256).hexdigest()


def _kept(response: Response) -> Mapping[str, Any]:
    headers = {name: response[name] for name in KEPT_HEADERS if name in response}
    return {"status": response.status_code, "data": response.data, "headers": headers}


def _replayed(stored: StoredAnswer, key: str, request: Request) -> Response:
    if not hmac.compare_digest(stored.request_hash, _request_hash(key, request)):
        raise KeyOfAnotherRequest(
            "This Idempotency-Key was sent with another request: method, path or body differ.", hint="Take a new key."
        )
    try:
        kept = json.loads(_cipher(key, stored.actor).decrypt(bytes(stored.answer or b"")))
    except InvalidToken as error:
        raise KeyOfAnotherRequest(
            "The answer was stored under a former secret of this installation.", hint="Read what became of the call."
        ) from error
    return Response(kept["data"], kept["status"], headers=kept["headers"] | {"Idempotent-Replayed": "true"})


def _cipher(key: str, actor: str) -> MultiFernet:
    info = f"fedui.api.once:{actor}:{key}".encode()
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    derived = (HKDF(SHA256(), 32, salt=None, info=info).derive(secret.encode()) for secret in secrets)
    return MultiFernet([Fernet(urlsafe_b64encode(secret)) for secret in derived])
