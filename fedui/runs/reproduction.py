"""All that makes a run what it is, as YAML; and the run again."""

from __future__ import annotations

from typing import Any

import yaml
from django.db import transaction

from fedui.runs import commands, weights
from fedui.runs.commands import Order
from fedui.runs.models import CommandKind, Run, RunCommand
from fedui.runs.services import Plan, create_run


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


@transaction.atomic
def reproduce(run: Run, order: Order, *, name: str = "", plan: Plan | None = None) -> Run:
    """The same run again, with the weights that people gave to clients, at the same rounds. Raises `RunRefused`."""
    again = create_run(
        run.federation,
        order.actor,
        name=name or f"{run.name}, again"[:120],
        strategy_version=run.strategy_version,
        app=run.app,
        num_rounds=run.num_rounds,
        seed=run.seed,
        origin=run.origin,
        plan=plan or Plan(),
        address=order.address,
    )
    RunCommand.objects.bulk_create(
        RunCommand(
            run=again, key=f"as-{one.pk}", kind=one.kind, actor=order.actor, actor_name=order.actor.get_username(),
            round_number=0, data=one.data,
        )
        for one in run.commands.filter(kind=CommandKind.WEIGH)
    )  # fmt: skip
    commands.note_derived(run, order, CommandKind.CLONE, again, {})
    return again
