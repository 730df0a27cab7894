"""Averaging against the memory's own speed and the usual NumPy way, on one core; and what else is done once a round.

The usual way is Flower's: multiply each update by its weight, add them up, divide. It has all updates in memory, twice.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import reduce
from importlib.util import find_spec
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from aggregator.core.accumulator import WeightedMean
from aggregator.core.statistics import Sketcher
from aggregator.core.strategies.fedadam import Adam
from benchmarks.reporting import report
from protos.encodings import Compression, Encoding, decode, encode, first_non_finite
from protos.tensors import Parameters, Signature

CASES = [(1_000_000, 10), (1_000_000, 100), (10_000_000, 10), (10_000_000, 100), (100_000_000, 10)]
"""Elements and updates. The largest two take 8 GB, of which the usual way needs half for itself."""
BAR = (10_000_000, 100)
"""The case that the bars are set for."""
REPEATS, PERMUTATIONS = 5, 100

Updates = list[NDArray[np.float32]]


def median_seconds(work: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return statistics.median(once() for _ in range(REPEATS))


def weights_of(count: int) -> list[int]:
    return [int(n) for n in np.random.default_rng(2).integers(1, 1000, count)]


def exact(updates: Updates, weights: list[int], *, compiled: bool | None = None) -> NDArray[Any]:
    mean = WeightedMean(Signature.of({"w": updates[0]}), compiled=compiled)
    for update, weight in zip(updates, weights, strict=True):
        mean.add({"w": update}, weight)
    return mean.result()["w"]


def usual(updates: Updates, weights: list[int]) -> NDArray[Any]:
    weighted = [update * weight for update, weight in zip(updates, weights, strict=True)]
    mean: NDArray[Any] = reduce(np.add, weighted) / sum(weights)
    return mean


def copied(updates: Updates, target: NDArray[np.float32]) -> None:
    for update in updates:
        np.copyto(target, update)


def measure_memory(size: int, count: int) -> None:
    """Must come first: the peak is the process's."""
    rng, buffer = np.random.default_rng(1), np.empty(size, np.float32)
    exact([np.ones(8, np.float32)], [1], compiled=True)
    rng.standard_normal(out=buffer, dtype=np.float32)
    before = psutil.Process().memory_info().rss
    mean = WeightedMean(Signature.of({"w": buffer}), compiled=True)
    for weight in weights_of(count):
        rng.standard_normal(out=buffer, dtype=np.float32)
        mean.add({"w": buffer}, weight)
    mean.result()
    models = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / buffer.nbytes
    report("fedavg_rss_models", models, "float32 models", 4, ok=models <= 4, elements=size, updates=count,
           against="the bar; beyond one input buffer")  # fmt: skip


def measure_speed(size: int, count: int) -> None:
    rng = np.random.default_rng(1)
    updates = [rng.standard_normal(size, np.float32) for _ in range(count)]
    weights, target = weights_of(count), np.ones(size, np.float32)
    gigabytes = count * size * 4 / 1e9
    speed = gigabytes / median_seconds(lambda: exact(updates, weights))
    copy = gigabytes / median_seconds(lambda: copied(updates, target))
    numpy = gigabytes / median_seconds(lambda: usual(updates, weights))
    bar = (size, count) == BAR
    settings: dict[str, Any] = {
        "elements": size,
        "updates": count,
        "kernels": "numba" if find_spec("numba") else "numpy",
    }
    report("fedavg_vs_copy", speed, "GB/s of updates", copy, ok=speed >= 0.5 * copy if bar else None,
           against="np.copyto, bytes read", **settings)  # fmt: skip
    report("fedavg_vs_numpy", speed, "GB/s of updates", numpy, ok=speed >= 2 * numpy if bar else None,
           against="multiply each, reduce, divide", **settings)  # fmt: skip


def measure_order(size: int, count: int) -> None:
    rng = np.random.default_rng(1)
    updates = [rng.standard_normal(size, np.float32) * np.float32(10.0**k) for k in range(-count // 2, count // 2)]
    weights, results = weights_of(count), set()
    for number in range(PERMUTATIONS):
        order = rng.permutation(count)
        mean = exact([updates[k] for k in order], [weights[k] for k in order], compiled=number % 2 == 0)
        results.add(mean.tobytes())
    report("order_bits", len(results), "different results", 1, ok=len(results) == 1, permutations=PERMUTATIONS,
           elements=size, updates=count, against="one; both kernels in turn")  # fmt: skip


def measure_statistics(size: int) -> None:
    rng = np.random.default_rng(1)
    current, update = ({"w": rng.standard_normal(size, np.float32)} for _ in range(2))
    sketcher, mean = Sketcher(Signature.of(current), 1), WeightedMean(Signature.of(current))
    mean.add(update, 3)
    plain = median_seconds(lambda: mean.add(update, 3))
    observed = median_seconds(lambda: mean.add(update, 3, sketcher.observe(current)))
    report("observed_sum_seconds", observed, "s", plain, elements=size, against="the sum alone")


def measure_compressed(size: int) -> None:
    """Bytes of one update on the wire, what is allocated while it is checked and summed, and the time that takes."""
    rng = np.random.default_rng(1)
    current = {"w": rng.standard_normal(size, np.float32)}
    signature, update = (
        Signature.of(current),
        {"w": current["w"] + np.float32(0.01) * rng.standard_normal(size, np.float32)},
    )
    compressions: tuple[Compression, ...] = ("none", "float16", "bfloat16", "int8")
    for compression in compressions:
        encoding, mean = Encoding(compression, delta=True), WeightedMean(signature)
        content = encode(update, encoding, current)

        def take_in() -> None:
            parameters = decode(content, signature, encoding, current)  # noqa: B023  # called in this turn of the loop
            first_non_finite(parameters)
            mean.add(parameters, 3)  # noqa: B023

        take_in()
        seconds = median_seconds(take_in)
        tracemalloc.start()
        take_in()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        report("compressed_update_mb", len(content) / 1e6, "MB", signature.size / 1e6, compression=compression,
               elements=size, against="the model", allocated_mb=round(peak / 1e6, 1),
               gigabytes_per_second=round(signature.size / 1e9 / seconds, 2))  # fmt: skip


def measure_server_step(size: int) -> None:
    rng = np.random.default_rng(1)
    current: Parameters = {"w": rng.standard_normal(size, np.float32)}
    aggregate: Parameters = {"w": rng.standard_normal(size, np.float32)}
    optimizer = Adam().build(Signature.of(current))
    step = median_seconds(lambda: optimizer.step(current, aggregate))
    streams = 5 * median_seconds(lambda: np.copyto(current["w"], aggregate["w"]))
    report("fedadam_step_seconds", step, "s", streams, elements=size, against="five np.copyto")


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, whatever libraries think of threads
    measure_memory(*BAR)
    measure_order(100_000, 10)
    measure_statistics(10_000_000)
    measure_compressed(10_000_000)
    measure_server_step(10_000_000)
    for case in CASES:
        measure_speed(*case)


if __name__ == "__main__":
    main()
