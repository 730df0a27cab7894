"""How often somebody may call, counted in the cache that all web processes share."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.cache import cache
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from fedui.audit.services import record

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 60
POLLS_PER_MINUTE = 600


def attempts(what: str) -> int:
    """How many there have been of `what` in this minute, this one included. Counted atomically."""
    key = f"attempts:{what}:{int(time.time()) // WINDOW_SECONDS}"
    cache.add(key, 0, timeout=2 * WINDOW_SECONDS)
    number: int = cache.incr(key)
    return number


class _PerAddress(BaseThrottle):
    scope: str

    def limit(self) -> int:
        raise NotImplementedError

    def allow_request(self, request: Request, view: Any) -> bool:
        address = request.META.get("REMOTE_ADDR") or None
        number = attempts(f"{self.scope}:{address}")
        if number == self.limit() + 1:  # once a minute: an attacker fills no log
            record(None, "agent", f"{self.scope}.throttled", address or "unknown address", address=address)
        return number <= self.limit()

    def wait(self) -> float:
        return WINDOW_SECONDS - time.time() % WINDOW_SECONDS


class EnrolmentThrottle(_PerAddress):
    """Attempts at a token."""

    scope = "enrolment"

    def limit(self) -> int:
        return int(settings.ENROLMENTS_PER_MINUTE)


class AdmissionThrottle(_PerAddress):
    """Agents that ask whether they are admitted yet: a hospital's may all come from one address."""

    scope = "admission"

    def limit(self) -> int:
        return POLLS_PER_MINUTE


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a caller stands in this minute."""

    limit: int
    number: int
    reset: int
    """Seconds until the next."""

    def headers(self) -> dict[str, str]:
        """As in draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"minute";q={self.limit};w={WINDOW_SECONDS}',
            "RateLimit": f'"minute";r={max(0, self.limit - self.number)};t={self.reset}',
        }


class FairUse(BaseThrottle):
    """What one API key, one account, or one address without either, may ask for in a minute.

    It keeps one from slowing the others down; nothing secret rests on it. So while the cache is away, callers are let in.
    """

    rate: Rate

    def allow_request(self, request: Request, view: Any) -> bool:
        who, limit = _caller(request)
        try:
            number = attempts(f"api:{who}")
        except RedisError as error:
            logger.warning("Calls of the API aren't counted: the cache is away: %s", error)
            return True
        view.rate = self.rate = Rate(limit, number, max(1, round(WINDOW_SECONDS - time.time() % WINDOW_SECONDS)))
        return number <= limit

    def wait(self) -> float:
        return self.rate.reset


def _caller(request: Request) -> tuple[str, int]:
    if request.auth is not None:
        return f"key:{request.auth.pk}", settings.API_CALLS_PER_MINUTE
    if request.user.is_authenticated:
        return f"user:{request.user.pk}", settings.API_CALLS_PER_MINUTE
    return f"address:{request.META.get('REMOTE_ADDR')}", settings.API_STRANGERS_PER_MINUTE
