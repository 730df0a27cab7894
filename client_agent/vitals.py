"""How much of the machine this process uses, for the heartbeat."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


class Vitals:
    """CPU use between one reading and the next, and memory now."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._wall = time.monotonic()

    def cpu_fraction(self) -> float:
        """Of all cores, since the last call."""
        cpu, wall = time.process_time(), time.monotonic()
        used, passed = cpu - self._cpu, wall - self._wall
        self._cpu, self._wall = cpu, wall
        return min(1.0, used / max(passed, 1e-9) / (os.cpu_count() or 1))

    @staticmethod
    def memory_bytes() -> int:
        """Resident set size; where the system doesn't tell it, the largest that it ever was."""
        try:
            resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
            return resident_pages * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            if sys.platform == "win32":
                return 0
            import resource

            unit = 1 if sys.platform == "darwin" else 1024
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
