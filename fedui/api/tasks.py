from __future__ import annotations

from celery import shared_task

from fedui.api import once


@shared_task(name="api.forget_expired")
def forget_expired() -> int:
    """Answers that no repeated call will be given any more."""
    return once.forget_expired()
