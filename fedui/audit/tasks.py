from __future__ import annotations

from celery import shared_task

from fedui.audit.services import check_log


@shared_task(name="audit.verify")
def verify() -> bool:
    """Whether the audit log is as it was written. Daily, and when somebody asks for it."""
    return not check_log().faults
