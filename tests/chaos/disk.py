"""The disk that holds the model store, which can be full: a small file system of its own, where this user may mount one."""

from __future__ import annotations

import contextlib
import errno
import resource
import subprocess
from collections.abc import Iterable
from pathlib import Path

SIZE_MB = 32
LARGEST_BYTES = 2048
"""Where nothing can be mounted, the workers can write no larger file while the disk is full."""


class Disk:
    """At `folder`. `kind` says which way it fills: "tmpfs", or "file size limit" for a user who may mount nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ballast = folder, folder / "ballast"
        folder.mkdir(parents=True, exist_ok=True)
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(folder)]
        self._mounted = _succeeds(mounting)
        self._limited: dict[int, tuple[int, int]] = {}
        self.kind = "tmpfs" if self._mounted else "file size limit"

    def fill(self, writers: Iterable[int]) -> None:
        """`writers`: the processes that write there."""
        if self._mounted:
            _fill(self._ballast)
            return
        for pid in writers:
            soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            self._limited[pid] = (soft, hard)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (LARGEST_BYTES, hard))

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)
        for pid, usual in self._limited.items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)
        self._limited.clear()

    def half_written(self) -> list[str]:
        return [path.name for path in self._folder.rglob("*.tmp")]

    def remove(self) -> None:
        if self._mounted:
            subprocess.run(["umount", str(self._folder)], check=True)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
