"""Celery tasks around alerts. Beat repeats each; what happens in between only hints at them."""

from __future__ import annotations

from celery import shared_task

from fedui.alerts import deliveries, evaluation, retention
from fedui.federations.models import Federation


@shared_task(name="alerts.evaluate")
def evaluate() -> None:
    evaluation.evaluate_all()


@shared_task(name="alerts.evaluate_federation")
def evaluate_federation(federation_id: str, kinds: list[str]) -> None:
    """Something has happened there that rules of these kinds watch for."""
    if federation := Federation.objects.filter(pk=federation_id).first():
        evaluation.evaluate(federation, kinds)


@shared_task(name="alerts.deliver")
def deliver() -> int:
    return deliveries.deliver_due()


@shared_task(name="alerts.forget")
def forget() -> None:
    retention.forget_old()
