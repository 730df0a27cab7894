"""How long to wait before the next attempt."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

FIRST_SECONDS = 1.0
MAX_SECONDS = 60.0


def delays(cap: float = MAX_SECONDS) -> Iterator[float]:
    """Exponential back-off with full jitter, without end.

    Jitter spreads the agents over time, so that a server that comes back isn't struck by all of them at once
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    for attempt in itertools.count():
        yield random.uniform(0, min(cap, FIRST_SECONDS * 2 ** min(attempt, 30)))
