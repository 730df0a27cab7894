"""Celery tasks of the registry."""

from __future__ import annotations

from celery import shared_task


@shared_task(name="registry.verify")
def verify(version_id: int) -> None:
    from fedui.registry.files import check_file
    from fedui.registry.models import RegisteredVersion

    check_file(RegisteredVersion.objects.select_related("source__run", "model__federation").get(pk=version_id))
