"""What people do to runs. Each order is obeyed once a key, changes nothing where the run is so already, and leaves a row
that charts show and an entry in the audit log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from django.db import transaction
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.clients.models import Client
from fedui.runs import live, weights
from fedui.runs.models import CommandKind, ModelVersion, Priority, Run, RunCommand, RunStatus
from fedui.runs.services import Plan, RunRefused, check_rounds, make_run, record_made
from fedui.runs.tasks import dispatch_ownerless
from fedui.strategies.models import StrategyVersion

Told = Mapping[str, Any]

ACTIONS: Mapping[CommandKind, str] = {
    CommandKind.START: "run.started",
    CommandKind.SCHEDULE: "run.scheduled",
    CommandKind.PRIORITISE: "run.prioritised",
    CommandKind.PAUSE: "run.paused",
    CommandKind.RESUME: "run.resumed",
    CommandKind.STOP: "run.stopped",
    CommandKind.CANCEL: "run.cancelled",
    CommandKind.EXTEND: "run.extended",
    CommandKind.CLONE: "run.cloned",
    CommandKind.FORK: "run.forked",
    CommandKind.WEIGH: "run.client_weighed",
}
"""As the audit log calls them."""


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants it, and from where. The same `key` again is the same order; without one, each is its own."""

    actor: User
    key: str = ""
    address: str | None = None


def pause(run: Run, order: Order, *, at_once: bool = False) -> RunCommand | None:
    """After the round in progress, or now, without it. None, here and below, if there was nothing to do. All raise `IllegalTransition` or
    `RunRefused` where the order makes no sense."""

    def act(run: Run) -> Told | None:
        already = run.status == RunStatus.PAUSED or (run.status == RunStatus.PAUSING and run.pause_at_once >= at_once)
        if already:
            return None
        reason = f"Paused by {order.actor.get_username()}."
        if run.status == RunStatus.QUEUED:
            run.transition(RunStatus.PAUSED, reason=reason, start_at=None)
        elif run.status == RunStatus.PAUSING:
            Run.objects.filter(pk=run.pk).update(pause_at_once=True)
        else:
            run.transition(RunStatus.PAUSING, reason=reason, pause_at_once=at_once)
        return {"at_once": at_once}

    return _obey(run, order, CommandKind.PAUSE, act)


def resume(run: Run, order: Order) -> RunCommand | None:
    """Go on after a pause, or after a failure, from the last committed round; or take a pause back before it begins."""

    def act(run: Run) -> Told | None:
        if run.status in (RunStatus.QUEUED, RunStatus.RUNNING):
            return None
        if run.status == RunStatus.PAUSING:
            run.transition(RunStatus.RUNNING, reason="", pause_at_once=False)
        elif run.status in (RunStatus.PAUSED, RunStatus.FAILED):
            _queue(run)
        else:
            run.transition(RunStatus.RUNNING)  # says why it can't
        return {"round": run.rounds_done + 1}

    return _obey(run, order, CommandKind.RESUME, act)


def stop(run: Run, order: Order) -> RunCommand | None:
    """For good; the round in progress is dropped. At once if nobody drives the run."""

    def act(run: Run) -> Told | None:
        if run.status in (RunStatus.STOPPING, RunStatus.STOPPED):
            return None
        reason = f"Stopped by {order.actor.get_username()}."
        if run.status in (RunStatus.QUEUED, RunStatus.PAUSED):
            run.transition(RunStatus.STOPPED, reason=reason, ended_at=timezone.now(), start_at=None)
        else:
            run.transition(RunStatus.STOPPING, reason=reason)
        return {}

    return _obey(run, order, CommandKind.STOP, act)


def cancel(run: Run, order: Order) -> RunCommand | None:
    """A run that has not begun never will."""

    def act(run: Run) -> Told | None:
        if run.has_begun:
            raise RunRefused(f"{run} has begun.", hint="Stop it instead.")
        if run.status == RunStatus.STOPPED:
            return None
        reason = f"Cancelled by {order.actor.get_username()} before it began."
        run.transition(RunStatus.STOPPED, reason=reason, ended_at=timezone.now(), start_at=None)
        return {}

    return _obey(run, order, CommandKind.CANCEL, act)


def start(run: Run, order: Order) -> RunCommand | None:
    """A run that waits for its time need wait no longer."""

    def act(run: Run) -> Told | None:
        if run.status == RunStatus.QUEUED and run.start_at:
            Run.objects.filter(pk=run.pk).update(start_at=None)
            return {}
        if run.status in (RunStatus.QUEUED, RunStatus.RUNNING):
            return None
        raise RunRefused(f"{run} is {run.status}.", hint="Only a run that is scheduled can be started.")

    return _obey(run, order, CommandKind.START, act)


def schedule(run: Run, order: Order, *, start_at: datetime) -> RunCommand | None:
    def act(run: Run) -> Told | None:
        if run.status != RunStatus.QUEUED:
            raise RunRefused(f"{run} is {run.status}.", hint="Only a run that is queued can be scheduled.")
        if run.start_at == start_at:
            return None
        Run.objects.filter(pk=run.pk).update(start_at=start_at)
        return {"start_at": start_at.isoformat(timespec="seconds")}

    return _obey(run, order, CommandKind.SCHEDULE, act)


def prioritise(run: Run, order: Order, *, priority: int) -> RunCommand | None:
    def act(run: Run) -> Told | None:
        if priority not in Priority.values:
            raise RunRefused(f"There is no priority {priority}.", hint="Choose low (-1), normal (0) or high (1).")
        if run.is_terminal:
            raise RunRefused(f"{run} has ended.", hint="Priorities are for runs that wait.")
        if run.priority == priority:
            return None
        Run.objects.filter(pk=run.pk).update(priority=priority)
        return {"priority": priority}

    return _obey(run, order, CommandKind.PRIORITISE, act)


def extend(run: Run, order: Order, *, num_rounds: int) -> RunCommand | None:
    """`num_rounds` in all: so asking twice extends once."""

    def act(run: Run) -> Told | None:
        if num_rounds == run.num_rounds:
            return None
        _check_extension(run, num_rounds)
        Run.objects.filter(pk=run.pk).update(num_rounds=num_rounds)
        if run.status == RunStatus.COMPLETED:
            _queue(run)
        return {"num_rounds": num_rounds, "before": run.num_rounds}

    return _obey(run, order, CommandKind.EXTEND, act)


def _check_extension(run: Run, num_rounds: int) -> None:
    check_rounds(num_rounds)
    if num_rounds < run.num_rounds:
        raise RunRefused(f"{run} has {run.num_rounds} rounds already.", hint="Stop or pause it to do fewer.")
    if run.status in (RunStatus.STOPPING, RunStatus.STOPPED):
        raise RunRefused(f"{run} is {run.status}: that is final.", hint="Fork it from its last round.")
    if run.status == RunStatus.COMPLETED and run.rounds_done < run.num_rounds:
        raise RunRefused(
            f"{run} was ended by the early stop of its strategy after {run.rounds_done} rounds, and would be again.",
            hint="Fork it with a strategy that stops later.",
        )


def clone(run: Run, order: Order, *, name: str = "", plan: Plan | None = None) -> Run:
    """The same again, from the beginning."""
    return _derive(
        run, order, CommandKind.CLONE, {},
        name=name or run.name, strategy_version=run.strategy_version, num_rounds=run.num_rounds, seed=run.seed, plan=plan,
    )  # fmt: skip


def fork(
    run: Run,
    order: Order,
    *,
    round_number: int,
    strategy_version: StrategyVersion | None = None,
    num_rounds: int | None = None,
    name: str = "",
    seed: int | None = None,
    plan: Plan | None = None,
) -> Run:
    """A new run that begins with the model of a committed round of this one."""
    origin = run.models.filter(round_number=round_number).first()
    if origin is None:
        raise RunRefused(f"{run} has no committed round {round_number}.", hint=f"Choose 0 to {run.rounds_done}.")
    return _derive(
        run, order, CommandKind.FORK, {"round": round_number},
        name=name or f"{run.name}, from round {round_number}"[:120],
        strategy_version=strategy_version or run.strategy_version,
        num_rounds=num_rounds or run.num_rounds,
        seed=run.seed if seed is None else seed,
        origin=origin,
        plan=plan,
    )  # fmt: skip


def reproduce(run: Run, order: Order, *, name: str = "", plan: Plan | None = None) -> Run:
    """The same run again: it begins with what this one began with, and clients count for what they did, at the same rounds."""
    return _derive(
        run, order, CommandKind.CLONE, {},
        name=name or f"{run.name}, again"[:120], strategy_version=run.strategy_version, num_rounds=run.num_rounds, seed=run.seed,
        origin=run.origin, plan=plan, also=lambda again: weights.repeat(run, again, order.actor),
    )  # fmt: skip


def weigh(run: Run, order: Order, *, client: Client, percent: int, why: str = "") -> RunCommand | None:
    """What a client counts for from the next round on: 0 excludes it, 100 is in full."""

    def act(run: Run) -> Told | None:
        weights.check(run, percent)
        if weights.latest(run).get(str(client.pk), weights.FULL) == percent:
            return None
        told = {
            "client": str(client.pk),
            "name": client.name,
            "percent": percent,
            "from_round": weights.next_round(run),
        }
        return told | ({"why": why} if why else {})

    return _obey(run, order, CommandKind.WEIGH, act)


@transaction.atomic
def _derive(
    run: Run, order: Order, kind: CommandKind, told: Told, *, plan: Plan | None, origin: ModelVersion | None = None,
    name: str, strategy_version: StrategyVersion, num_rounds: int, seed: int, also: Callable[[Run], None] = lambda _: None,
) -> Run:  # fmt: skip
    made: list[Run] = []

    def act(run: Run) -> Told:
        made.append(
            make_run(
                run.federation,
                order.actor,
                name=name,
                strategy_version=strategy_version,
                app=run.app,
                num_rounds=num_rounds,
                seed=seed,
                origin=origin,
                plan=plan or Plan(),
            )
        )
        also(made[0])
        return {**told, "run": made[0].pk}

    command = _obey(run, order, kind, act, lambda: record_made(made[0], order.actor, order.address))
    assert command is not None  # a run is made, or was by the same order
    return made[0] if made else Run.objects.get(pk=command.data["run"])


def note_derived(origin: Run, order: Order, kind: CommandKind, derived: Run, told: Told) -> None:
    """That a run was made from this one by other means than `clone` and `fork`: with a form, say."""
    _obey(origin, order, kind, lambda _: {**told, "run": derived.pk})


def _queue(run: Run) -> None:
    now = timezone.now()
    run.transition(RunStatus.QUEUED, reason="", ended_at=None, queued_at=now, start_at=None, retries=0)


@transaction.atomic
def _obey(
    run: Run,
    order: Order,
    kind: CommandKind,
    act: Callable[[Run], Told | None],
    record_more: Callable[[], None] = lambda: None,
) -> RunCommand | None:
    """Do what `act` does to the run as it is now, once. What is recorded comes after all else that is written."""
    run = Run.objects.select_for_update().get(pk=run.pk)
    if order.key and (earlier := run.commands.filter(key=order.key).first()):
        if earlier.kind != kind:
            raise RunRefused(f"The key {order.key} belongs to another order: {earlier.kind}.", hint="Take a new key.")
        return earlier
    told = act(run)
    if told is None:
        return None
    command = RunCommand.objects.create(
        run=run,
        key=order.key or uuid4().hex,
        kind=kind,
        actor=order.actor,
        actor_name=order.actor.get_username(),
        round_number=run.rounds_done,
        data=dict(told),
    )
    details = {"run": run.pk} | {f"new_{name}" if name == "run" else name: value for name, value in told.items()}
    record_more()
    record(run.federation, order.actor, ACTIONS[kind], run, address=order.address, **details)
    transaction.on_commit(lambda: _announce(run, command), robust=True)
    return command


def _announce(run: Run, command: RunCommand) -> None:
    live.run_changed(run)
    live.run_commanded(command)
    dispatch_ownerless.delay()  # a place may be free now, or taken; the watchdog looks again should the broker be away
