"""How runs come to be. What people do to them is in `fedui.runs.commands`, what happens to them by itself is the engine's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NotRequired, TypedDict, Unpack

from django.db import transaction

from aggregator.core.strategy import refusal
from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.catalog.models import App
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Federation
from fedui.runs import live
from fedui.runs.models import ModelVersion, Priority, Run
from fedui.runs.tasks import host_run
from fedui.strategies.models import StrategyVersion

MAX_NAME_LENGTH = 120
MAX_ROUNDS = 100_000
MAX_SEED = 2**63 - 1
MAX_RETRIES = 10


class RunRefused(DomainError):
    """A run that could never be, whatever its clients do; or an order that makes no sense for it."""

    code = ErrorCode.RUN_REFUSED


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is carried out, whatever it trains."""

    priority: int = Priority.NORMAL
    start_at: datetime | None = None
    """None: as soon as there is a place."""
    max_retries: int = 0


class Wanted(TypedDict):
    """What somebody wants a run to be."""

    name: str
    strategy_version: StrategyVersion
    app: App
    num_rounds: int
    seed: int
    origin: NotRequired[ModelVersion | None]
    plan: NotRequired[Plan]


@transaction.atomic
def create_run(
    federation: Federation, actor: User, *, key: str | None = None, address: str | None = None, **wanted: Unpack[Wanted]
) -> Run:
    """A queued run, as `make_run` makes it. Who asks a second time with the same `key` is given the run of the first."""
    if key:
        # Of two at once the second finds the first's.
        Federation.objects.select_for_update(no_key=True).get(pk=federation.pk)
        if earlier := federation.runs.filter(key=key).first():
            return earlier
    if origin := wanted.get("origin"):
        # Engines lock a run before its models, and before the audit log's head: who is to note the fork there has it from the start.
        Run.objects.select_for_update().get(pk=origin.run_id)
    run = make_run(federation, actor, key=key, **wanted)
    record_made(run, actor, address)
    return run


def make_run(federation: Federation, actor: User, *, key: str | None = None, **wanted: Unpack[Wanted]) -> Run:
    """In a transaction, of which `record_made` is to be among the last writes. An aggregator takes the run up as soon as there is one.

    Raises `RunRefused`. That no client offers the app, or too few are online, is no reason to refuse: the run waits for them. With an
    `origin` it begins with that model.
    """
    origin, plan = wanted.pop("origin", None), wanted.pop("plan", Plan())
    wanted["name"] = wanted["name"].strip()
    _check(federation, wanted)
    _check_plan(plan)
    run = Run.objects.create(
        federation=federation,
        created_by=actor,
        key=key or None,
        origin=_usable(origin, federation, wanted["app"]) if origin else None,
        priority=plan.priority,
        start_at=plan.start_at,
        max_retries=plan.max_retries,
        **wanted,
    )
    # Robust: the run exists, and the watchdog dispatches it should the broker be away now.
    transaction.on_commit(lambda: host_run.delay(run.pk), robust=True)
    transaction.on_commit(lambda: live.run_changed(run), robust=True)
    return run


def record_made(run: Run, actor: User, address: str | None) -> None:
    record(
        run.federation, actor, "run.created", run, address=address, run=run.pk, strategy=str(run.strategy_version),
        app=str(run.app), num_rounds=run.num_rounds, seed=run.seed, **_told(run),
    )  # fmt: skip


def _told(run: Run) -> Mapping[str, Any]:
    """For the audit log: what isn't as usual."""
    told: dict[str, Any] = {"origin": f"run {run.origin.run_id}, round {run.origin.round_number}"} if run.origin else {}
    if run.priority != Priority.NORMAL:
        told["priority"] = run.priority
    if run.start_at:
        told["start_at"] = run.start_at.isoformat(timespec="seconds")
    return told | ({"max_retries": run.max_retries} if run.max_retries else {})


def _usable(origin: ModelVersion, federation: Federation, app: App) -> ModelVersion:
    """Locked, so that retention can't remove it meanwhile. Raises `RunRefused`."""
    model = ModelVersion.objects.select_for_update(of=("self",)).select_related("run").get(pk=origin.pk)
    if model.run.federation_id != federation.pk:
        raise RunRefused("The model belongs to another federation.", hint=f"Choose a run of {federation}.")
    if model.run.app_id != app.pk:
        raise RunRefused(f"{model} is not a model of {app}.", hint=f"Fork it with {model.run.app}.")
    if model.removed_at:
        raise RunRefused(
            f"{model} was removed by retention on {model.removed_at:%-d %b %Y}.", hint="Fork another round."
        )
    return model


def _check_plan(plan: Plan) -> None:
    if plan.priority not in Priority.values:
        raise RunRefused(f"There is no priority {plan.priority}.", hint="Choose low (-1), normal (0) or high (1).")
    if not 0 <= plan.max_retries <= MAX_RETRIES:
        raise RunRefused(f"A run can't be tried again {plan.max_retries} times.", hint=f"Choose 0 to {MAX_RETRIES}.")


def check_rounds(num_rounds: int) -> None:
    """Raises `RunRefused`."""
    if not 1 <= num_rounds <= MAX_ROUNDS:
        raise RunRefused(f"A run can't have {num_rounds} rounds.", hint=f"Choose 1 to {MAX_ROUNDS:,}.")


def _check(federation: Federation, wanted: Wanted) -> None:
    strategy_version, app, seed = wanted["strategy_version"], wanted["app"], wanted["seed"]
    if not 1 <= len(wanted["name"]) <= MAX_NAME_LENGTH:
        raise RunRefused(f"A run's name has 1 to {MAX_NAME_LENGTH} characters.", hint="Give it another name.")
    if strategy_version.strategy.federation_id != federation.pk:
        raise RunRefused(
            f"{strategy_version} belongs to another federation.", hint=f"Choose a strategy of {federation}."
        )
    if app.federation_id != federation.pk:
        raise RunRefused(f"{app} belongs to another federation.", hint=f"Choose an app of {federation}.")
    if reason := refusal(strategy_version.parsed, app.model_signature):
        raise RunRefused(
            f"{strategy_version} can't train {app}. {reason}", hint="Choose an app and a strategy that go together."
        )
    check_rounds(wanted["num_rounds"])
    if not 0 <= seed <= MAX_SEED:
        raise RunRefused(f"The seed can't be {seed}.", hint=f"Choose a number from 0 to {MAX_SEED}.")
