"""What people do to runs. What happens to them by itself is the engine's (`aggregator`, `fedui.runs.adapters`)."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from aggregator.core.strategy import refusal
from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.catalog.models import App
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Federation
from fedui.runs import live
from fedui.runs.models import Run, RunStatus
from fedui.runs.tasks import host_run
from fedui.strategies.models import StrategyVersion

MAX_NAME_LENGTH = 120
MAX_ROUNDS = 100_000
MAX_SEED = 2**63 - 1


class RunRefused(DomainError):
    """A run that could never be, whatever its clients do."""

    code = ErrorCode.RUN_REFUSED


@transaction.atomic
def create_run(
    federation: Federation,
    actor: User,
    *,
    name: str,
    strategy_version: StrategyVersion,
    app: App,
    num_rounds: int,
    seed: int,
    address: str | None = None,
) -> Run:
    """A queued run, which an aggregator takes up as soon as there is one. Raises `RunRefused`.

    That no client offers the app, or too few are online, is no reason to refuse: the run waits for them.
    """
    _check(federation, name, strategy_version, app, num_rounds, seed)
    run = Run.objects.create(
        federation=federation,
        name=name.strip(),
        strategy_version=strategy_version,
        app=app,
        num_rounds=num_rounds,
        seed=seed,
        created_by=actor,
    )
    record(
        federation, actor, "run.created", run, address=address,
        run=run.pk, strategy=str(strategy_version), app=str(app), num_rounds=num_rounds, seed=seed,
    )  # fmt: skip
    # Robust: the run exists, and the watchdog dispatches it should the broker be away now.
    transaction.on_commit(lambda: host_run.delay(run.pk), robust=True)
    transaction.on_commit(lambda: live.run_changed(run), robust=True)
    return run


@transaction.atomic
def stop_run(run: Run, actor: User, address: str | None = None) -> None:
    """Ask the run to stop; at once if nobody drives it. Raises `IllegalTransition` if it has ended or is stopping."""
    run = Run.objects.select_for_update().get(pk=run.pk)  # What it is now decides, and stays so until we have written.
    reason = f"Stopped by {actor.get_username()}."
    if run.status == RunStatus.QUEUED:
        run.transition(RunStatus.STOPPED, reason=reason, ended_at=timezone.now())
    else:
        run.transition(RunStatus.STOPPING, reason=reason)
    record(run.federation, actor, "run.stopped", run, address=address, run=run.pk)
    transaction.on_commit(lambda: live.run_changed(run), robust=True)


def _check(
    federation: Federation, name: str, strategy_version: StrategyVersion, app: App, num_rounds: int, seed: int
) -> None:
    if not 1 <= len(name.strip()) <= MAX_NAME_LENGTH:
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
    if not 1 <= num_rounds <= MAX_ROUNDS:
        raise RunRefused(f"A run can't have {num_rounds} rounds.", hint=f"Choose 1 to {MAX_ROUNDS:,}.")
    if not 0 <= seed <= MAX_SEED:
        raise RunRefused(f"The seed can't be {seed}.", hint=f"Choose a number from 0 to {MAX_SEED}.")
