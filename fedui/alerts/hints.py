"""The engine hints that something has happened that rules may watch for. It waits for nobody: what is lost here, beat finds."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from fedui.alerts.kinds import Kind
from fedui.runs.models import Event

logger = logging.getLogger(__name__)

OF_ROUNDS = frozenset({Kind.METRIC_THRESHOLD, Kind.UPDATE_FLAGGED, Kind.QUORUM_MISSED})
TELLING: Mapping[str, frozenset[Kind]] = {
    "run.finished": OF_ROUNDS | {Kind.RUN_FAILED, Kind.RUN_FINISHED, Kind.RUN_STALLED},
    "client.flagged": frozenset({Kind.UPDATE_FLAGGED}),
    "round.abandoned": frozenset({Kind.QUORUM_MISSED}),
    "round.committed": OF_ROUNDS,
    "round.evaluated": frozenset({Kind.METRIC_THRESHOLD}),
}
"""What each kind of event may make a rule find."""
HINT_EXPIRES_SECONDS = 30
PAUSE_SECONDS = 3.0
"""From one hint of a federation to the next: a search takes longer than a short round."""

_sender = ThreadPoolExecutor(max_workers=1, thread_name_prefix="alert hints")
_waiting: dict[str, set[Kind]] = {}
_sent_at: dict[str, float] = {}
_lock = threading.Lock()


def events_stored(events: Sequence[Event]) -> None:
    """Events of one run. At most one hint a federation waits at a time, in a thread that isn't the caller's."""
    kinds = {kind for event in events for kind in TELLING.get(event.kind, ())}
    if not kinds:
        return
    federation_id = str(events[0].run.federation_id)
    with _lock:
        if federation_id in _waiting:
            _waiting[federation_id] |= kinds
            return
        _waiting[federation_id] = kinds
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
        kinds = sorted(_waiting.pop(federation_id))
        _sent_at[federation_id] = time.monotonic()
    try:
        evaluate_federation.apply_async((federation_id, kinds), expires=HINT_EXPIRES_SECONDS, retry=False)
    except Exception as error:  # whatever the broker's transport raises
        logger.warning("No hint could be sent: %s", error)
