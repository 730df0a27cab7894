"""All that makes a run what it is, as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from fedui.runs import weights
from fedui.runs.models import Run


def description(run: Run) -> dict[str, Any]:
    version = run.strategy_version
    told: dict[str, Any] = {
        "app": {"name": run.app.name, "version": run.app.version},
        "rounds": run.num_rounds,
        "seed": run.seed,
        "begins_with": None,
        "weights": weights.ordered(run),
        "strategy": {"name": version.strategy.name, "version": version.number, **version.config},
    }
    if run.origin:
        told["begins_with"] = {"run": run.origin.run_id, "round": run.origin.round_number, "sha256": run.origin.sha256}
    return {name: value for name, value in told.items() if value not in (None, [])}


def as_yaml(run: Run) -> str:
    return yaml.safe_dump(description(run), sort_keys=False, allow_unicode=True)
