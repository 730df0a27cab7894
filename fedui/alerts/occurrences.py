"""What a rule finds in a stretch of time: the same search for what is so now and for the preview on past data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from fedui.clients.models import Client
from fedui.runs.models import Run

LOOK_BACK = timedelta(days=1)
"""How long an event stays worth an open alert, if nothing ends it before."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Something that a rule watches for has been so from `at`, and until `until` if it has ended."""

    subject: str
    at: datetime
    until: datetime | None
    title: str
    detail: str = ""
    client: Client | None = None
    run: Run | None = None

    def lasts_at(self, now: datetime) -> bool:
        return self.until is None or self.until > now


def about_run(run: Run) -> str:
    return f"run:{run.pk}"


def about_client(client: Client) -> str:
    return f"client:{client.pk}"
