"""Means of the metrics that clients report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from protos.convert import ScalarValue

MAX_NAMES = 32
"""Metrics kept of one report: an agent can't fill the database with invented names."""
MAX_NAME_LENGTH = 63
"""Longer names are cut; of those that are the same then one is kept."""

SMALL = 2.0**-64
"""Scales any number so far down that its products with examples, and their sum, are finite; but for subnormals exactly."""


def numeric(metrics: Mapping[str, ScalarValue]) -> dict[str, float]:
    """The finite numbers among `metrics`, at most `MAX_NAMES` of them, in the order of their names."""
    numbers = {
        name[:MAX_NAME_LENGTH]: float(value)
        for name, value in sorted(metrics.items())
        if isinstance(value, int | float) and math.isfinite(value)
    }
    return dict(list(numbers.items())[:MAX_NAMES])


def weighted_means(reports: Iterable[tuple[Mapping[str, float], int]]) -> dict[str, tuple[float, int]]:
    """Of each metric its mean over the reports that have it, weighted by examples, and the examples behind it.

    `reports` are (metrics, number of examples); metrics are finite. `fsum` makes the result independent of their order.
    A mean that rounding takes beyond the largest number is left out.
    """
    terms: dict[str, list[tuple[float, int]]] = {}
    for metrics, num_examples in reports:
        for name, value in metrics.items():
            terms.setdefault(name, []).append((value, num_examples))
    means = {}
    for name, pairs in sorted(terms.items()):
        if weight := sum(n for _, n in pairs):
            mean = math.fsum(value * SMALL * n for value, n in pairs) / weight / SMALL
            if math.isfinite(mean):
                means[name] = (mean, weight)
    return means
