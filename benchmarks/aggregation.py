"""How fast updates are averaged, against the usual NumPy way: keep all, multiply each, add, divide."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from aggregator.core.accumulator import WeightedMean
from benchmarks.reporting import report
from protos.tensors import Signature

CLIENTS, SIZE, REPEATS = 10, 5_000_000, 3


def fastest(work: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return min(once() for _ in range(REPEATS))


def main() -> None:
    rng = np.random.default_rng(1)
    updates: list[NDArray[np.float32]] = [rng.standard_normal(SIZE, np.float32) for _ in range(CLIENTS)]
    weights = [int(n) for n in rng.integers(1, 1000, CLIENTS)]

    def exact() -> None:
        accumulator = WeightedMean(Signature.of({"w": updates[0]}))
        for update, weight in zip(updates, weights, strict=True):
            accumulator.add({"w": update}, weight)
        accumulator.result()

    def usual() -> None:
        weighted = [update * weight for update, weight in zip(updates, weights, strict=True)]
        np.divide(np.add.reduce(weighted), sum(weights))

    gigabytes = CLIENTS * SIZE * 4 / 1e9
    report(
        "aggregation.weighted_mean",
        gigabytes / fastest(exact),
        "GB/s of updates",
        gigabytes / fastest(usual),
        clients=CLIENTS,
        elements=SIZE,
        against="NumPy, float32, all updates in memory, order-dependent",
    )


if __name__ == "__main__":
    main()
