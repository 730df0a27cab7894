"""Robust rules against NumPy on the same rows, one core: 50 updates of a million float32."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core import registry
from aggregator.core.spooled import Rows
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.spool import FileSpool
from benchmarks.reporting import report
from protos.tensors import Parameters, Signature

ROWS, LENGTH, MALICIOUS, REPEATS = 50, 1_000_000, 11, 5
BULYAN_SECONDS = 0.2


def median_seconds(work: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return statistics.median(once() for _ in range(REPEATS))


def rule_seconds(name: str, matrix: NDArray[Any], **settings: Any) -> float:
    """Of `result`, with the updates spooled."""
    model: Parameters = {"w": np.zeros(LENGTH, np.float32)}
    config = registry.rules()[name].model_validate({"name": name, **settings})
    aggregator = config.begin(RoundContext(1, 0, Signature.of(model), model, ROWS, FileSpool))
    for k, row in enumerate(matrix):
        aggregator.add(Update(f"{k:03d}", {"w": row}, 1, {}))
    seconds = median_seconds(aggregator.result)
    aggregator.close()
    return seconds


def numpy_bulyan(matrix: NDArray[Any], selected: list[int]) -> NDArray[Any]:
    """The step by coordinate as it is usually written; the selection is left out, to its advantage."""
    rows = np.sort(matrix[selected], axis=0)
    median = np.median(rows, axis=0)
    nearest = np.argsort(np.abs(rows - median), axis=0)[: len(selected) - 2 * MALICIOUS]
    mean: NDArray[Any] = np.take_along_axis(rows, nearest, axis=0).mean(axis=0)
    return mean


def main() -> None:
    matrix = np.random.default_rng(1).standard_normal((ROWS, LENGTH), np.float32)
    sizes: dict[str, Any] = {"rows": ROWS, "elements": LENGTH}

    seconds, reference = rule_seconds("median", matrix), median_seconds(lambda: np.median(matrix, axis=0))
    report("median_vs_numpy", reference / seconds, "times faster", 1.0, ok=reference / seconds >= 10, seconds=round(seconds, 4),
           against="np.median(axis=0)", **sizes)  # fmt: skip

    seconds, reference = rule_seconds("krum", matrix, malicious=MALICIOUS), median_seconds(lambda: matrix @ matrix.T)
    report(
        "krum_vs_gram", seconds, "s", reference, ok=seconds / reference <= 1.5, against="one BLAS Gram matrix", **sizes
    )

    selected = list(range(ROWS - 2 * MALICIOUS))
    seconds = rule_seconds("bulyan", matrix, malicious=MALICIOUS)
    reference = median_seconds(lambda: numpy_bulyan(matrix, selected))
    report("bulyan_vs_numpy", seconds, "s", reference, ok=seconds <= BULYAN_SECONDS, malicious=MALICIOUS,
           against="np.sort and np.argsort, without the selection", **sizes)  # fmt: skip

    for name in ("trimmed_mean", "geometric_median"):
        report(f"{name}_seconds", rule_seconds(name, matrix), "s", median_seconds(lambda: np.median(matrix, axis=0)),
               against="np.median(axis=0)", **sizes)  # fmt: skip
    rows = Rows(matrix, list(range(ROWS)), np.ones(ROWS, np.int64))
    report("spooled_block_mb", rows.block(rows.blocks()[0]).nbytes / 1e6, "MB", matrix.nbytes / 1e6, against="all rows",
           peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)  # fmt: skip


if __name__ == "__main__":
    main()
