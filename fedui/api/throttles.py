from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.cache import cache
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

WINDOW_SECONDS = 60


class EnrolmentThrottle(BaseThrottle):
    """So many attempts a minute from one address, counted atomically in the cache that all web processes share."""

    def allow_request(self, request: Request, view: Any) -> bool:
        window = int(time.time()) // WINDOW_SECONDS
        key = f"enrolments:{request.META.get('REMOTE_ADDR')}:{window}"
        cache.add(key, 0, timeout=2 * WINDOW_SECONDS)
        limit: int = settings.ENROLMENTS_PER_MINUTE
        attempts: int = cache.incr(key)
        return attempts <= limit

    def wait(self) -> float:
        return WINDOW_SECONDS - time.time() % WINDOW_SECONDS
