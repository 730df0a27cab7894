"""What clients of a run count for: in full, less, or not at all. The engine reads it as a round opens.

An order counts from the first round that was not open when it came. So a round that is done again after a crash has the
weights that it had.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q

from fedui.accounts.models import User
from fedui.clients.models import Client
from fedui.runs.models import CommandKind, RoundStatus, Run, RunCommand
from fedui.runs.services import RunRefused

FULL = 100


def client_of(run: Run, text: str) -> Client:
    """By its id or its name. Raises `RunRefused`."""
    try:
        named = Q(pk=UUID(text))
    except ValueError:
        named = Q(name=text)
    client = Client.objects.filter(named, federation=run.federation_id).first()
    if client is None:
        raise RunRefused("This federation has no such client.", hint="Give the id or the name of one of its clients.")
    return client


def check(run: Run, percent: int) -> None:
    """Raises `RunRefused`."""
    if not 0 <= percent <= FULL:
        raise RunRefused(f"A client can't count for {percent} %.", hint="Choose 0, which excludes it, to 100.")
    if run.is_terminal and run.status != "failed":
        raise RunRefused(f"{run} is {run.status}: no round follows.", hint="Fork it, and exclude the client there.")
    rule = run.strategy_version.parsed.aggregation
    if 0 < percent < FULL and not rule.weighs:
        raise RunRefused(
            f"{rule.title} doesn't weigh updates, so no client can count for less.", hint="Exclude the client instead."
        )


def next_round(run: Run) -> int:
    """From which an order counts that comes now."""
    return max(run.opened_round, run.rounds_done) + 1


def latest(run: Run) -> dict[str, int]:
    """As ordered last, whether or not it counts already."""
    return _folded(_orders(run))


def in_force(run: Run, round_number: int) -> dict[str, int]:
    return _folded([order for order in _orders(run) if order.data["from_round"] <= round_number])


def opened(run: Run, round_number: int, fencing: int) -> dict[str, int]:
    """For the engine, which has the lock of `run`: the weights of a round that is about to begin."""
    came_to_nothing = run.opened_round == round_number and run.opened_by == fencing
    if came_to_nothing and not run.rounds.filter(number=round_number, status=RoundStatus.RUNNING).exists():
        _pull(run, round_number)
    Run.objects.filter(Q(pk=run.pk) & ~Q(opened_round=round_number, opened_by=fencing)).update(
        opened_round=round_number, opened_by=fencing
    )
    return in_force(run, round_number)


def close(run: Run) -> None:
    """The round that was open is dropped on purpose: what was ordered meanwhile counts when it is done again."""
    _pull(run, run.rounds_done + 1)
    Run.objects.filter(pk=run.pk).update(opened_round=run.rounds_done)


def ordered(run: Run) -> list[dict[str, Any]]:
    """All orders, for people."""
    names = ("name", "percent", "from_round")
    return [{name: order.data[name] for name in names} for order in _orders(run)]


def repeat(run: Run, again: Run, actor: User) -> None:
    """Order for `again`, which is new, what was ordered for `run`."""
    RunCommand.objects.bulk_create(
        RunCommand(
            run=again, key=f"as-{one.pk}", kind=one.kind, actor=actor, actor_name=actor.get_username(), round_number=0, data=one.data
        )
        for one in _orders(run)
    )  # fmt: skip


def _pull(run: Run, round_number: int) -> None:
    for order in _orders(run):
        if order.data["from_round"] > round_number:
            order.data["from_round"] = round_number
            order.save(update_fields=["data"])


def _orders(run: Run) -> list[RunCommand]:
    return list(run.commands.filter(kind=CommandKind.WEIGH))


def _folded(orders: list[RunCommand]) -> dict[str, int]:
    weights = {order.data["client"]: order.data["percent"] for order in orders}
    return {client: percent for client, percent in weights.items() if percent != FULL}
