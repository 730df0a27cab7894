"""The aggregation core against what else one could use: robust rules on all cores, averaging on one."""

from __future__ import annotations

from benchmarks import aggregation_linear, aggregation_robust
from benchmarks.timing import one_core


def main() -> None:
    aggregation_robust.measure()
    one_core()
    aggregation_linear.measure()


if __name__ == "__main__":
    main()
