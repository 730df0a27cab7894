"""The task queue.

Worker: `celery -A fedui worker -Q aggregation,default --pool threads`. Watchdog: `celery -A fedui beat`.
"""

from __future__ import annotations

import logging.config
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedui.settings")

app = Celery("fedui")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def _use_our_logging(**_: Any) -> None:
    """With a receiver here, Celery leaves logging alone."""
    logging.config.dictConfig(settings.LOGGING)
