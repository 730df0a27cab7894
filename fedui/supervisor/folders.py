"""The data folder of a server: that it can be written to, and that it serves one server at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedui.supervisor.children import StartFailed

LOCK = ".fedui-lock"


def writable(folder: Path) -> Path:
    """`folder`, made when missing, readable by nobody else. Raises `StartFailed`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartFailed(
            f"The folder {folder} can't be made: {error.strerror}. Choose another: --data-dir."
        ) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise StartFailed(f"You may not write to {folder}. Choose another folder: --data-dir.")
    return folder


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """`folder` is this process's until the end of the block, or its own end, however sudden. Raises `StartFailed`."""
    with (writable(folder) / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartFailed(f"FedUI runs on {folder} already. End it, or choose another: --data-dir.") from error
        yield
