"""The task queue.

Worker: `celery -A fedui worker -Q aggregation,default --pool threads`. Watchdog: `celery -A fedui beat`.
"""

from __future__ import annotations

import logging.config
import os
import sys
from typing import Any

from celery import Celery
from celery.signals import setup_logging
from django.conf import settings

from fedui.metrics.sharing import is_worker, share

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedui.settings")

if is_worker(sys.argv):
    share("worker", settings.METRICS_DIR)
app = Celery("fedui")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def _use_our_logging(**_: Any) -> None:
    """With a receiver here, Celery leaves logging alone."""
    logging.config.dictConfig(settings.LOGGING)
