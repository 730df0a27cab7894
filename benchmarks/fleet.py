"""The fleet: connections, transfers and agents under load, each measurement in processes of its own.

`python -m benchmarks.fleet idle_agent …` measures what is named, without names everything.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping

from benchmarks import fleet_agents, fleet_flower, fleet_idle_agent, fleet_transfers

MEASUREMENTS: Mapping[str, Callable[[], None]] = {
    "idle_agent": fleet_idle_agent.measure,
    "agents_1000": fleet_agents.measure,
    "noop_round": fleet_transfers.noop_round,
    "upload_1gb": fleet_transfers.upload_1gb,
    "round_100mb": fleet_transfers.round_100mb,
    "resume_20_cuts": fleet_transfers.resume_20_cuts,
    "flower_bridge": fleet_flower.measure,
}


def main(names: list[str]) -> None:
    """A process for each: Django takes its settings once, and memory is measured."""
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise SystemExit(f"No measurement is called {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}.")
    if len(names) == 1:
        MEASUREMENTS[names[0]]()
        return
    for name in names or MEASUREMENTS:
        subprocess.run([sys.executable, "-m", "benchmarks.fleet", name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
