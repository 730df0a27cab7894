"""Attempts of strangers, counted in the cache that all web processes share."""

from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from fedui.audit.services import record

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
