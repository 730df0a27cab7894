"""Processes of one kind on one machine count together, in files of a folder that they share (prometheus_client's multi-process mode).

This has to happen before prometheus_client is first imported. A process that is the first of its kind begins anew; whoever is there holds
a lock on the folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: each process counts for itself
    fcntl = None  # type: ignore[assignment]

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_held: list[IO[str]] = []
"""Open for as long as the process lives."""


def is_worker(arguments: list[str]) -> bool:
    """Whether this command line starts a Celery worker."""
    return bool(arguments) and "celery" in arguments[0] and "worker" in arguments[1:]


def share(kind: str, parent: Path) -> None:
    """From here on this process counts together with others of its kind."""
    if fcntl is None or VARIABLE in os.environ or "prometheus_client" in sys.modules:
        return
    folder = parent / kind
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (folder / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pass  # others are at work
    else:
        for left in folder.glob("*.db"):
            left.unlink(missing_ok=True)
    fcntl.flock(lock, fcntl.LOCK_SH)
    _held.append(lock)
    os.environ[VARIABLE] = str(folder)
