"""The engine hints that something has happened that rules may watch for. It waits for nobody: what is lost here, beat finds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fedui.runs.models import Event

logger = logging.getLogger(__name__)

TELLING = frozenset({"run.finished", "client.flagged", "round.abandoned", "round.committed", "round.evaluated"})
HINT_EXPIRES_SECONDS = 30

_sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alert hints")
_waiting: set[str] = set()
_lock = threading.Lock()


def events_stored(events: Sequence[Event]) -> None:
    """Events of one run. At most one hint a federation waits at a time, in a thread of its own."""
    if all(event.kind not in TELLING for event in events):
        return
    federation_id = str(events[0].run.federation_id)
    with _lock:
        if federation_id in _waiting:
            return
        _waiting.add(federation_id)
    _sender.submit(_send, federation_id)


def _send(federation_id: str) -> None:
    from fedui.alerts.tasks import evaluate_federation

    with _lock:
        _waiting.discard(federation_id)
    try:
        evaluate_federation.apply_async((federation_id,), expires=HINT_EXPIRES_SECONDS, retry=False)
    except Exception as error:  # whatever the broker's transport raises
        logger.warning("No hint could be sent: %s", error)
