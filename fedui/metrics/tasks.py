"""Counts Celery's tasks, and serves what a worker counts. Celery finds this module as it finds tasks."""

from __future__ import annotations

from typing import Any

from celery.signals import task_postrun, worker_ready
from django.conf import settings

from fedui.metrics.counted import TASKS


@task_postrun.connect
def _count(task: Any = None, state: str | None = None, **_: Any) -> None:
    TASKS.labels(task.name, (state or "unknown").lower()).inc()


@worker_ready.connect
def _serve(**_: Any) -> None:
    if settings.METRICS_BIND:
        from fedui.metrics.exposition import serve_worker

        serve_worker(settings.METRICS_BIND)
