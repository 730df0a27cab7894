"""The engine hints that something has happened that rules may watch for. It waits for nobody: what is lost here, beat finds."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fedui.runs.models import Event

logger = logging.getLogger(__name__)

TELLING = frozenset({"run.finished", "client.flagged", "round.abandoned", "round.committed", "round.evaluated"})
HINT_EXPIRES_SECONDS = 30
PAUSE_SECONDS = 1.0
"""From one hint of a federation to the next: at each all its rules are searched for, which takes longer than a short round."""

_sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alert hints")
_waiting: set[str] = set()
_sent_at: dict[str, float] = {}
_lock = threading.Lock()


def events_stored(events: Sequence[Event]) -> None:
    """Events of one run. At most one hint a federation waits at a time, in a thread that isn't the caller's."""
    if all(event.kind not in TELLING for event in events):
        return
    federation_id = str(events[0].run.federation_id)
    with _lock:
        if federation_id in _waiting:
            return
        _waiting.add(federation_id)
        seconds = _sent_at.get(federation_id, -math.inf) + PAUSE_SECONDS - time.monotonic()
    if seconds <= 0:
        _sender.submit(_send, federation_id)
        return
    later = threading.Timer(seconds, _send, [federation_id])
    later.daemon = True
    later.start()


def _send(federation_id: str) -> None:
    from fedui.alerts.tasks import evaluate_federation

    with _lock:
        _waiting.discard(federation_id)
        _sent_at[federation_id] = time.monotonic()
    try:
        evaluate_federation.apply_async((federation_id,), expires=HINT_EXPIRES_SECONDS, retry=False)
    except Exception as error:  # whatever the broker's transport raises
        logger.warning("No hint could be sent: %s", error)
