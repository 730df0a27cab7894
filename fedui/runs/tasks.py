"""Celery tasks around runs. A task is a hint that there is work; the truth is the run's row and its lease."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task
from celery.signals import worker_ready, worker_shutdown, worker_shutting_down
from django.utils import timezone

from fedui.runs import queue

logger = logging.getLogger(__name__)

AGGREGATION_QUEUE = "aggregation"
HINT_EXPIRES_SECONDS = 10
"""The next beat repeats a hint; older ones are of no use, and would pile up while no worker is there."""


@shared_task(name="aggregation.host_run")
def host_run(run_id: int) -> bool:
    """Drive the run on this worker's engine until it ends. Does nothing if it has ended or another worker drives it."""
    from fedui.worker import engine_host  # the engine and gRPC: of no use to the web process, which imports this module

    hosted = engine_host().run(run_id)
    if hosted:
        dispatch_ownerless()  # it may have made room for the next in the queue
    return hosted


@shared_task(name="runs.dispatch_ownerless")
def dispatch_ownerless() -> int:
    """Send every run that has lost its worker, and those that are next in the queue, to the workers."""
    run_ids = [*queue.lost_runs(), *queue.next_in_line(timezone.now())]
    for run_id in run_ids:
        host_run.apply_async((run_id,), expires=HINT_EXPIRES_SECONDS)
    return len(run_ids)


@shared_task(name="runs.apply_retention")
def apply_retention() -> None:
    """Remove what no policy keeps, and what crashes have left in the model store."""
    from fedui.runs.retention import apply_everywhere
    from fedui.runs.store import model_files

    for federation, removal in apply_everywhere(model_files()).items():
        if removal:
            logger.info("Retention has removed %s", removal, extra={"federation": federation})


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
