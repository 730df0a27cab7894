"""The run's page at its largest, in Chromium: 500 rounds of 1,000 clients; and from progress to pixel with a hundred watchers.

`python -m benchmarks.dashboard run_page_500x1000 …` measures what is named, without names everything.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

from benchmarks import dashboard_latency, dashboard_page

MEASUREMENTS: Mapping[str, Callable[[], None]] = {
    "run_page_500x1000": dashboard_page.measure,
    "progress_to_pixel": dashboard_latency.measure,
}


def main(names: list[str]) -> None:
    """A process for each: Django takes its settings once."""
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise SystemExit(f"No measurement is called {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}.")
    if len(names) == 1:
        MEASUREMENTS[names[0]]()
        return
    for name in names or MEASUREMENTS:
        subprocess.run([sys.executable, "-m", "benchmarks.dashboard", name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
