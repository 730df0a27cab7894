"""Celery tasks around runs. A task is a hint that there is work; the truth is the run's row and its lease."""

from __future__ import annotations

from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from django.utils import timezone

from fedui.runs.models import Run

AGGREGATION_QUEUE = "aggregation"
HINT_EXPIRES_SECONDS = 10
"""The next beat repeats a hint; older ones are of no use, and would pile up while no worker is there."""


@shared_task(name="aggregation.host_run")
def host_run(run_id: int) -> bool:
    """Drive the run on this worker's engine until it ends. Does nothing if it has ended or another worker drives it."""
    from fedui.worker import engine_host  # the engine and gRPC: of no use to the web process, which imports this module

    return engine_host().run(run_id)


@shared_task(name="runs.dispatch_ownerless")
def dispatch_ownerless() -> int:
    """Send every active run that no worker holds to the workers again."""
    run_ids = list(Run.objects.without_owner(timezone.now()).values_list("pk", flat=True))
    for run_id in run_ids:
        host_run.apply_async((run_id,), expires=HINT_EXPIRES_SECONDS)
    return len(run_ids)


@worker_ready.connect
def _start_engine(sender: Any, **_: Any) -> None:
    if AGGREGATION_QUEUE in sender.app.amqp.queues.consume_from:
        from fedui.worker import engine_host

        engine_host().start()


@worker_shutting_down.connect
def _drain_engine(**_: Any) -> None:
    from fedui.worker import engine_host

    engine_host().drain()


@worker_shutdown.connect
def _stop_engine(**_: Any) -> None:
    from fedui.worker import engine_host

    engine_host().stop()
