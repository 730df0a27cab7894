"""Celery tasks around presence."""

from __future__ import annotations

from asgiref.sync import async_to_sync
from celery import shared_task

from fedui.clients import history, presence
from fedui.runs import live


@shared_task(name="clients.expire_leases")
def expire_leases() -> int:
    """Take down the connections of workers that died, and tell the pages."""
    federations = presence.expire_leases()
    for federation_id in federations:
        async_to_sync(live.clients_changed)(federation_id)
    return len(federations)


@shared_task(name="clients.forget_old_history")
def forget_old_history() -> None:
    history.forget_old()
