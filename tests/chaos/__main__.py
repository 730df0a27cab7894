"""`python -m tests.chaos`: harm done to runs by a seeded schedule. Prints a line of JSON for each, and one for each bar."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import django

from tests.chaos.cluster import Cluster
from tests.chaos.faults import KINDS, PHASES, Fault, pairs, schedule

TAKEOVER_BAR = 15.0


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # as Ctrl-C: nothing is left behind
    folder = Path(tempfile.mkdtemp(prefix="fedui-chaos-"))
    with Cluster(folder, options.database) as cluster:
        os.environ.update(cluster.environment)
        django.setup()
        code = _experiments(cluster, options)
    if not options.keep:
        shutil.rmtree(folder)
    return code


def _experiments(cluster: Cluster, options: argparse.Namespace) -> int:
    from tests.chaos.experiment import STRATEGIES, Laboratory

    laboratory = Laboratory(cluster)
    rng = random.Random(options.seed)
    verdicts = []
    for faults in _plan(options):
        verdict = laboratory.suffer(rng.choice(list(STRATEGIES)), faults)
        verdicts.append(verdict)
        _say(faults=verdict.faults, next_event_s=verdict.seconds_to_next_event, wrong=verdict.wrong)
    return 0 if _bars(verdicts, options, cluster.disk.kind) else 1


def _plan(options: argparse.Namespace) -> list[list[Fault]]:
    if options.only:
        kind, _, phase = options.only.partition(":")
        phases = [phase] if phase else PHASES
        return [[Fault(kind, one, 2, "hosp-birch")] for one in phases]
    return [[fault] for fault in schedule(options.single, options.seed)] + pairs(options.double, options.seed + 1)


def _bars(verdicts: list[Any], options: argparse.Namespace, disk: str) -> bool:
    settings = {
        "single": options.single,
        "double": options.double,
        "seed": options.seed,
        "database": options.database,
        "disk": disk,
    }
    good = sum(not verdict.wrong for verdict in verdicts)
    _say(
        name="chaos_runs",
        value=good,
        unit="runs",
        reference=len(verdicts),
        ratio=good / len(verdicts),
        ok=good == len(verdicts),
        settings=settings,
    )
    takeovers = sorted(
        v.seconds_to_next_event
        for v in verdicts
        if v.seconds_to_next_event is not None and any("worker" in f for f in v.faults)
    )
    quick = True
    if takeovers:
        p95 = takeovers[min(len(takeovers) - 1, round(0.95 * (len(takeovers) - 1)))]
        quick = p95 <= TAKEOVER_BAR
        _say(
            name="takeover_s",
            value=round(p95, 2),
            unit="s",
            reference=TAKEOVER_BAR,
            ratio=p95 / TAKEOVER_BAR,
            ok=quick,
            settings=settings | {"takeovers": len(takeovers)},
        )
    repeated = sum("repeated a training" in one for v in verdicts for one in v.wrong)
    _say(
        name="work_lost", value=repeated, unit="trainings", reference=0, ratio=None, ok=repeated == 0, settings=settings
    )
    return good == len(verdicts) and quick


def _say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--single", type=int, default=100, help="runs with one fault")
    parser.add_argument("--double", type=int, default=20, help="runs with two")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("postgres", "sqlite"), default="postgres")
    parser.add_argument("--only", default="", help=f"a kind ({', '.join(KINDS)}), or kind:phase")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
