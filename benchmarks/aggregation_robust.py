"""Robust rules against NumPy and SciPy on the same rows, of a million float32. Rules and BLAS use all cores they are given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from aggregator.core import registry
from aggregator.core.strategies.base import Aggregator, RoundContext, Update
from aggregator.spool import FileSpool
from benchmarks.reporting import report
from benchmarks.timing import interleaved, peak_in_child
from protos.tensors import Parameters, Signature

COUNTS, LENGTH = (10, 50, 100), 1_000_000
BAR = 50
"""The number of updates that the bars are set for."""
BULYAN_SECONDS, MEDIAN_BYTES = 0.2, 64e6
WHY_SLOWER_THAN_GRAM = (
    "before the product the rows are centred on the model, "
    "so that a far update costs the others no digits: one more pass"
)

Matrix = NDArray[np.float32]


def malicious_among(count: int) -> int:
    """As many as Bulyan tolerates, n ≥ 4f + 3: 11 of 50."""
    return (count - 3) // 4


def rows_of(count: int) -> Matrix:
    return np.random.default_rng(1).standard_normal((count, LENGTH), np.float32)


def spooled(name: str, settings: dict[str, Any], matrix: Matrix) -> Aggregator:
    model: Parameters = {"w": np.zeros(LENGTH, np.float32)}
    config = registry.rules()[name].model_validate({"name": name, **settings})
    aggregator = config.begin(RoundContext(1, 0, Signature.of(model), model, len(matrix), FileSpool))
    for k, row in enumerate(matrix):
        aggregator.add(Update(f"{k:03d}", {"w": row}, 1, {}))
    return aggregator


def result_only(name: str, settings: dict[str, Any], count: int, ready: Callable[[], None]) -> None:
    aggregator = spooled(name, settings, rows_of(count))
    aggregator.result()  # loads what is loaded once, and reads the spool's pages in
    ready()
    aggregator.result()
    aggregator.close()


def numpy_bulyan(matrix: Matrix, malicious: int) -> NDArray[Any]:
    """The step by coordinate as it is usually written; the selection is left out, to its advantage."""
    selected = len(matrix) - 2 * malicious
    rows = np.sort(matrix[:selected], axis=0)
    median = np.median(rows, axis=0)
    nearest = np.argsort(np.abs(rows - median), axis=0)[: selected - 2 * malicious]
    mean: NDArray[Any] = np.take_along_axis(rows, nearest, axis=0).mean(axis=0)
    return mean


def measure_rule(name: str, matrix: Matrix, reference: Callable[[], object], **settings: Any) -> tuple[float, float]:
    """Of `result`, with the updates spooled: its seconds and the reference's."""
    aggregator = spooled(name, settings, matrix)
    aggregator.result()
    ours, theirs = interleaved(aggregator.result, reference)
    aggregator.close()
    return ours, theirs


def measure_memory(name: str, count: int, **settings: Any) -> None:
    beyond = peak_in_child(partial(result_only, name, settings, count))
    bar = name == "median" and count == BAR
    report(f"{name}_rss_mb", beyond / 1e6, "MB", 4 * LENGTH / 1e6, ok=beyond <= MEDIAN_BYTES if bar else None,
           rows=count, elements=LENGTH, against="one model; beyond the spool")  # fmt: skip


def measure_count(count: int) -> None:
    matrix, malicious, bar = rows_of(count), malicious_among(count), count == BAR
    sizes: dict[str, Any] = {"rows": count, "elements": LENGTH}

    ours, theirs = measure_rule("median", matrix, lambda: np.median(matrix, axis=0))
    report("median_vs_numpy", theirs / ours, "times faster", 1.0, ok=theirs / ours >= 10 if bar else None,
           seconds=round(ours, 4), against="np.median(axis=0)", **sizes)  # fmt: skip
    ours, theirs = measure_rule("trimmed_mean", matrix, lambda: stats.trim_mean(matrix, 0.2, axis=0))
    report("trimmed_mean_vs_scipy", theirs / ours, "times faster", 1.0, seconds=round(ours, 4),
           against="scipy.stats.trim_mean", **sizes)  # fmt: skip
    ours, theirs = measure_rule("krum", matrix, lambda: matrix @ matrix.T, malicious=malicious)
    report("krum_vs_gram", ours, "s", theirs, ok=ours <= 1.5 * theirs if bar else None,
           malicious=malicious, against="one BLAS Gram matrix", why_missed=WHY_SLOWER_THAN_GRAM, **sizes)  # fmt: skip
    ours, theirs = measure_rule("bulyan", matrix, lambda: numpy_bulyan(matrix, malicious), malicious=malicious)
    report("bulyan_vs_numpy", ours, "s", theirs, ok=ours <= BULYAN_SECONDS if bar else None, malicious=malicious,
           against="np.sort and np.argsort, without the selection", why_missed=WHY_SLOWER_THAN_GRAM, **sizes)  # fmt: skip
    ours, theirs = measure_rule("geometric_median", matrix, lambda: np.median(matrix, axis=0))
    report("rfa_vs_numpy", theirs / ours, "times faster", 1.0, seconds=round(ours, 4),
           against="np.median(axis=0)", **sizes)  # fmt: skip


def measure() -> None:
    for count in COUNTS:
        for name in ("median", "trimmed_mean", "geometric_median"):
            measure_memory(name, count)
        for name in ("krum", "bulyan"):
            measure_memory(name, count, malicious=malicious_among(count))
        measure_count(count)
