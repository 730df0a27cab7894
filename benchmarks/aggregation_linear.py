"""Averaging against the memory's own speed and the usual NumPy way, on one core; and what else is done once a round.

The usual way is Flower's: multiply each update by its weight, add them up, divide. It has all updates in memory, twice.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial, reduce
from importlib.util import find_spec
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from aggregator.core.accumulator import WeightedMean
from aggregator.core.statistics import Sketcher
from aggregator.core.strategies.fedadam import Adam
from benchmarks.reporting import report
from benchmarks.timing import interleaved, peak_in_child
from protos.encodings import Compression, Encoding, decode, encode, first_non_finite
from protos.tensors import Parameters, Signature

CASES = [(1_000_000, 10), (1_000_000, 100), (10_000_000, 10), (10_000_000, 100), (100_000_000, 10)]
"""Elements and updates. The largest two take 8 GB, of which the usual way needs half for itself."""
BAR = (10_000_000, 100)
"""The case that the bars are set for."""
PERMUTATIONS = 100
WHY_SLOWER_THAN_COPY = (
    "an exact sum moves 20 bytes a value (float32 in, int64 in and out), a copy 8 to 12; "
    "the bare loop reaches 0.63 to 0.71"
)

Updates = list[NDArray[np.float32]]


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


def stream(size: int, count: int, ready: Callable[[], None]) -> None:
    """Updates one after the other through one buffer, as a server takes them in."""
    rng, buffer = np.random.default_rng(1), np.empty(size, np.float32)
    exact([np.ones(8, np.float32)], [1], compiled=True)
    rng.standard_normal(out=buffer, dtype=np.float32)
    ready()
    mean = WeightedMean(Signature.of({"w": buffer}), compiled=True)
    for weight in weights_of(count):
        rng.standard_normal(out=buffer, dtype=np.float32)
        mean.add({"w": buffer}, weight)
    mean.result()


def measure_memory(size: int, count: int) -> None:
    models = peak_in_child(partial(stream, size, count)) / (4 * size)
    report("fedavg_rss_models", models, "float32 models", 4, ok=models <= 4 if (size, count) == BAR else None,
           elements=size, updates=count, against="the bar; beyond one input buffer")  # fmt: skip


def measure_speed(size: int, count: int) -> None:
    rng = np.random.default_rng(1)
    updates = [rng.standard_normal(size, np.float32) for _ in range(count)]
    weights, target = weights_of(count), np.ones(size, np.float32)
    ours, copy, numpy = interleaved(
        lambda: exact(updates, weights), lambda: copied(updates, target), lambda: usual(updates, weights)
    )
    gigabytes, bar = count * size * 4 / 1e9, (size, count) == BAR
    settings: dict[str, Any] = {
        "elements": size,
        "updates": count,
        "kernels": "numba" if find_spec("numba") else "numpy",
    }
    report("fedavg_vs_copy", gigabytes / ours, "GB/s of updates", gigabytes / copy, ok=ours <= 2 * copy if bar else None,
           against="np.copyto, bytes read", why_missed=WHY_SLOWER_THAN_COPY, **settings)  # fmt: skip
    report("fedavg_vs_numpy", gigabytes / ours, "GB/s of updates", gigabytes / numpy, ok=numpy >= 2 * ours if bar else None,
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
    plain, observed = interleaved(lambda: mean.add(update, 3), lambda: mean.add(update, 3, sketcher.observe(current)))
    report("observed_sum_seconds", observed, "s", plain, elements=size, against="the sum alone")


def measure_compressed(size: int) -> None:
    """Bytes of one update on the wire, what is allocated while it is checked and summed, and the time that takes."""
    for compression in get_args(Compression):
        _measure_encoding(Encoding(compression, delta=True), size)


def _measure_encoding(encoding: Encoding, size: int) -> None:
    rng = np.random.default_rng(1)
    current: Parameters = {"w": rng.standard_normal(size, np.float32)}
    update = {"w": current["w"] + np.float32(0.01) * rng.standard_normal(size, np.float32)}
    signature = Signature.of(current)
    content, mean = encode(update, encoding, current), WeightedMean(signature)

    def take_in() -> None:
        parameters = decode(content, signature, encoding, current)
        first_non_finite(parameters)
        mean.add(parameters, 3)

    take_in()
    (seconds,) = interleaved(take_in)
    tracemalloc.start()
    take_in()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    report("compressed_update_mb", len(content) / 1e6, "MB", signature.size / 1e6, compression=encoding.compression,
           elements=size, against="the model", allocated_mb=round(peak / 1e6, 1),
           gigabytes_per_second=round(signature.size / 1e9 / seconds, 2))  # fmt: skip


def measure_server_step(size: int) -> None:
    rng = np.random.default_rng(1)
    current: Parameters = {"w": rng.standard_normal(size, np.float32)}
    aggregate: Parameters = {"w": rng.standard_normal(size, np.float32)}
    optimizer = Adam().build(Signature.of(current))
    target = np.ones(size, np.float32)
    step, copy = interleaved(lambda: optimizer.step(current, aggregate), lambda: np.copyto(target, aggregate["w"]))
    report("fedadam_step_seconds", step, "s", 5 * copy, elements=size, against="five np.copyto")


def measure() -> None:
    measure_order(100_000, 10)
    measure_statistics(10_000_000)
    measure_compressed(10_000_000)
    measure_server_step(10_000_000)
    for case in CASES:
        measure_memory(*case)
        measure_speed(*case)
