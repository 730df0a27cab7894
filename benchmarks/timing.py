"""Timing of what is compared, and measuring memory where nothing else has taken any."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

REPEATS = 5
PEAK_RESET = Path("/proc/self/clear_refs")


def interleaved(*works: Callable[[], object]) -> list[float]:
    """The median seconds of each. They take turns, so that what else the machine does falls on all of them alike."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, taken in zip(works, seconds, strict=True):
            begun = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in seconds]


def peak_in_child(work: Callable[[Callable[[], None]], object]) -> int:
    """The bytes that `work` takes at its peak, in a process of its own, beyond those when it calls what it is given."""
    context = multiprocessing.get_context("spawn")  # a fork would begin with the peak of its parent
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(work, theirs))
    child.start()
    theirs.close()
    try:
        return int(ours.recv())
    finally:
        child.join()


def reset_peak(process: psutil.Process) -> int:
    """The bytes that are resident now. Linux: the peak begins anew at them."""
    path = Path(f"/proc/{process.pid}/clear_refs")
    if path.exists():
        path.write_text("5")
    return int(process.memory_info().rss)


def peak_of(process: psutil.Process) -> int:
    """Bytes. Where the peak can't be read, what is resident now."""
    path = Path(f"/proc/{process.pid}/status")
    if not path.exists():
        return int(process.memory_info().rss)
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _measure(work: Callable[[Callable[[], None]], object], results: Connection) -> None:
    before: list[int] = []
    work(partial(_note, before))
    results.send(_peak() - before[0])


def _note(before: list[int]) -> None:
    if PEAK_RESET.exists():
        PEAK_RESET.write_text("5")  # Linux: the peak begins anew at what is resident now
    before.append(psutil.Process().memory_info().rss)


def _peak() -> int:
    """Bytes. Where the peak can't be reset, that of the process's whole life, which is no less."""
    if not PEAK_RESET.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def one_core() -> None:
    """Whatever libraries think of threads; children inherit it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
