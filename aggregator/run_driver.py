"""Drives one run from where it stands to its end, round after round."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from aggregator.buffered_driver import BufferedRoundDriver, Fleet
from aggregator.context import RunContext
from aggregator.core.cohort import Attendance, select, updates_wanted
from aggregator.core.modes import Buffered
from aggregator.core.stopping import reason_to_stop
from aggregator.core.strategy import carried
from aggregator.initialisation import Initialisation, InitialisationFailed
from aggregator.models import GlobalModel
from aggregator.ports import (
    ClientIdentity,
    Directive,
    Ending,
    LeaseLost,
    Level,
    MetricRecord,
    RoundRecord,
    RunOutcome,
    RunState,
    StoreUnavailable,
)
from aggregator.round_driver import FULL, Cohort, CommittedRound, RoundDriver
from protos.tensors import Parameters

T = TypeVar("T")

logger = logging.getLogger(__name__)

SHOWN = 3
"""Owners' reasons that one message holds."""
RENEW_SECONDS = 2.5
"""How often the lease is renewed, and the operator's wish read; a nudge makes it sooner."""

LOOK_AGAIN_SECONDS = 5.0
"""While there are too few clients: an operator may let one in again that was excluded."""

_WISHES = {
    Directive.PAUSE: ("run.pausing", "pauses the run after this round", ""),
    Directive.PAUSE_NOW: ("run.pausing", "pauses the run now", "The run was paused."),
    Directive.STOP: ("run.stopping", "stops the run", "The run was stopped."),
}
"""Of each wish the kind of its event, what it says, and why the round in progress ends; empty: it doesn't."""


class RunFailed(Exception):
    """The run can't go on; the text is for the operator."""


class RunStopped(Exception):
    """The operator wants the run to end."""


class RunPaused(Exception):
    """The operator wants the run to rest; or something must be put right before it goes on, as the text says."""


class RunDriver:
    def __init__(self, context: RunContext, state: RunState) -> None:
        self._context = context
        self._state = state
        self._lease_lost = False
        self._last_stored = state.model
        self._deciding = dict(state.deciding)
        self._counted = dict(state.counted)
        self._attendance = dict(state.attendance)
        self._weights: Mapping[str, int] = {}
        self._round: RoundDriver | None = None
        self._asked: Collection[str] = ()
        """The clients of the last attempt."""
        self._fleet = Fleet(self._eligible)  # of a buffered run alone
        self._wish = Directive.GO_ON
        self._interrupted = asyncio.Event()  # while the wish is another one
        self._nudged = asyncio.Event()

    async def drive(self) -> None:
        """Returns when the run has ended, or another engine has taken it over. If cancelled, the run is given back."""
        main = asyncio.current_task()
        assert main is not None  # a coroutine runs in a task
        keeper = asyncio.create_task(self._keep_lease(main), name=f"lease of run {self._context.spec.run_id}")
        try:
            self._heed(await self._context.store.renew(self._context.lease))
            await self._drive_to_an_end()
        except LeaseLost:
            logger.warning("Another engine has taken the run over", extra={"run_id": self._context.spec.run_id})
        except asyncio.CancelledError:
            if not self._lease_lost:  # the engine is shutting down
                await self._context.store.release(self._context.lease)
                raise
            main.uncancel()
        finally:
            keeper.cancel()
            self._context.hub.forget_run(str(self._context.spec.run_id))
            await self._context.events.close()

    def nudge(self) -> None:
        """The operator may have changed their mind: look now."""
        self._nudged.set()

    async def _keep_lease(self, main: asyncio.Task[object]) -> None:
        while True:
            try:
                directive = await self._context.store.renew(self._context.lease)
            except LeaseLost:
                self._lease_lost = True
                main.cancel()
                return
            except Exception:
                # Fencing protects the run if the lease expires meanwhile; a database that is away is no reason to end it.
                logger.exception("The lease could not be renewed", extra={"run_id": self._context.spec.run_id})
                directive = self._wish
            self._heed(directive)
            try:
                await asyncio.wait_for(self._nudged.wait(), RENEW_SECONDS)
                self._nudged.clear()
            except TimeoutError:
                pass

    def _heed(self, directive: Directive) -> None:
        """A stop is final; a pause can be taken back as long as the run has not come to rest."""
        if directive is self._wish or self._wish is Directive.STOP:
            return
        self._wish = directive
        if directive is Directive.GO_ON:
            self._interrupted.clear()
            self._context.events.emit("run.unpaused", "The operator has taken the pause back", level=Level.WARNING)
            return
        self._interrupted.set()
        kind, words, ends_round = _WISHES[directive]
        self._context.events.emit(kind, f"The operator {words}", level=Level.WARNING)
        if self._round and ends_round:
            self._round.stop(ends_round)

    async def _drive_to_an_end(self) -> None:
        spec = self._context.spec
        all_rounds = None
        try:
            outcome, reason = RunOutcome.COMPLETED, await self._train()
            if not reason:
                reason, all_rounds = f"All {spec.num_rounds} rounds are done.", spec.num_rounds
        except RunPaused as pause:
            await self._rest(str(pause))
            return
        except StoreUnavailable as error:
            await self._rest(f"{error} Put that right and resume the run.")
            return
        except RunStopped:
            outcome, reason = RunOutcome.STOPPED, "Stopped by the operator."
        except (RunFailed, InitialisationFailed) as failure:
            outcome, reason = RunOutcome.FAILED, str(failure)
        except LeaseLost:
            raise
        except Exception as error:
            logger.exception("The run has failed", extra={"run_id": spec.run_id})
            outcome, reason = RunOutcome.FAILED, f"The engine failed: {type(error).__name__}: {error}"
        match await self._context.store.finish(self._context.lease, outcome, reason, all_rounds):
            case Ending.EXTENDED:
                self._context.events.emit("run.extended", "More rounds are wanted by now", level=Level.ROUND)
            case Ending.RETRIED:
                message = f"Run failed. {reason} It will be tried again from its last committed round."
                self._context.events.emit("run.retried", message, level=Level.ERROR, data={"reason": reason})
            case Ending.ENDED:
                if outcome is not RunOutcome.FAILED:  # which may be resumed
                    for client_id in self._attendance:
                        self._context.hub.settle(client_id, str(spec.run_id), None)
                self._context.events.emit(
                    "run.finished",
                    f"Run {outcome}. {reason}",
                    level=Level.ERROR if outcome is RunOutcome.FAILED else Level.ROUND,
                    data={"outcome": outcome, "reason": reason},
                )

    async def _rest(self, reason: str) -> None:
        """Without a reason, as the operator wants it."""
        await self._context.store.pause(self._context.lease, reason)
        level = Level.ERROR if reason else Level.WARNING
        message = f"Run paused. {reason or 'The operator wanted it.'}"
        self._context.events.emit("run.paused", message, level=level, data={"reason": reason})

    async def _train(self) -> str:
        try:
            return await self._run_rounds()
        finally:
            self._fleet.close(self._context)

    async def _run_rounds(self) -> str:
        """Why the run is complete; empty when all its rounds are done."""
        spec = self._context.spec
        if refusal := spec.strategy.aggregation.refusal(spec.signature):
            raise RunFailed(refusal)
        model, done = await self._starting_point()
        for number in range(done + 1, spec.num_rounds + 1):
            if reason := reason_to_stop(spec.strategy.stopping, self._deciding):
                return reason
            attempt = self._state.last_attempt if number == done + 1 else 0
            self._raise_if_interrupted()
            committed = await self._complete_round(number, attempt, model)
            model, self._last_stored = committed.model, committed.stored
            self._note_deciding(number, committed.metrics)
        return ""

    def _note_deciding(self, number: int, metrics: Sequence[MetricRecord]) -> None:
        stopping = self._context.spec.strategy.stopping
        for metric in metrics:
            if (metric.source, metric.name) == (stopping.source, stopping.metric):
                self._deciding[number] = metric.value

    def _note_attendance(self, cohort: Iterable[str], completed: Collection[str]) -> None:
        for client_id in cohort:
            before = self._attendance.get(client_id, Attendance())
            self._attendance[client_id] = before.after(completed=client_id in completed)

    async def _complete_round(self, number: int, last_attempt: int, model: GlobalModel) -> CommittedRound:
        """What was committed of the round, which is attempted until it is. Raises `RunFailed` after too many attempts."""
        allowed = self._context.spec.strategy.faults.max_abandoned
        reason = ""
        for failed in range(allowed):  # of these, not of attempts that were lost with an engine
            self._round = await self._begin_attempt(number, last_attempt + 1 + failed, failed, model)
            committed = await self._round.execute()
            self._asked = self._round.asked
            self._note_attendance(self._asked, self._round.completed)
            reason, self._round = self._round.reason, None
            if committed:
                self._counted |= committed.counted
                self._settle(number, committed.counted)
                return committed
            self._raise_if_interrupted()
            await self._forget_failed_round()
        raise RunFailed(f"Round {number} was abandoned {allowed} times. The last time: {reason}")

    def _settle(self, number: int, counted: Mapping[str, int]) -> None:
        """Tell clients what the commit makes of their updates. In a buffered run, who hasn't been counted yet may still be."""
        over = counted if isinstance(self._context.spec.strategy.mode, Buffered) else dict.fromkeys(self._asked, number)
        for client_id, asked in over.items():
            self._context.hub.settle(client_id, str(self._context.spec.run_id), asked)

    async def _begin_attempt(self, number: int, attempt: int, failed: int, model: GlobalModel) -> RoundDriver:
        mode = self._context.spec.strategy.mode
        if isinstance(mode, Buffered):
            await self._wait_for_clients(number)
            return BufferedRoundDriver(
                self._context, number, attempt, model, self._counted, mode, self._fleet, self._weights
            )
        cohort = await self._select_cohort(number, failed)
        return RoundDriver(self._context, number, attempt, cohort, model, self._counted, self._eligible, self._weights)

    async def _read_weights(self, number: int) -> None:
        """An operator may have excluded clients, or made them count for less."""
        weights = await self._context.store.weights(self._context.lease, number)
        if weights == self._weights:
            return
        self._weights = weights
        excluded = sum(not percent for percent in weights.values())
        words = [f"{excluded} excluded"] * bool(excluded) + [f"{len(weights) - excluded} of less weight"] * (
            len(weights) > excluded
        )
        message = f"From round {number} on, clients by the operator's order: {', '.join(words) or 'all in full again'}"
        data = {"weights": dict(weights)}
        self._context.events.emit("run.weighed", message, level=Level.WARNING, round_number=number, data=data)

    async def _forget_failed_round(self) -> None:
        """The strategy may have changed its state on the way to a model that was not committed."""
        state = await self._context.models.load_state(self._last_stored) if self._last_stored else {}
        self._context.strategy.load(state)

    async def _select_cohort(self, number: int, failed: int) -> Cohort:
        spec, clients = self._context.spec, await self._wait_for_clients(number)
        chosen = select(spec.strategy.cohort, spec.seed, number, clients, self._attendance, failed)
        names, reserve = (
            {client_id: clients[client_id].name for client_id in those} for those in (chosen.cohort, chosen.reserve)
        )
        return Cohort(names, updates_wanted(spec.strategy.cohort, len(clients)), len(clients), reserve)

    async def _starting_point(self) -> tuple[GlobalModel, int]:
        """The last committed model and its round, or the initial model and 0."""
        spec = self._context.spec
        if record := self._state.model:
            parameters = await self._context.models.load(record)
            self._context.strategy.load(await self._context.models.load_state(record))
            self._context.events.emit(
                "run.resumed",
                f"Run taken up after round {record.round_number}",
                level=Level.WARNING,
                data={"round": record.round_number},
            )
            return await self._global_model(parameters), record.round_number
        self._context.events.emit(
            "run.started",
            f"Run started: {spec.num_rounds} rounds of {spec.app} {spec.app_version}",
            level=Level.ROUND,
            data={"num_rounds": spec.num_rounds, "app": spec.app, "strategy": spec.strategy.algorithm},
        )
        return await self._initial_model(), 0

    async def _initial_model(self) -> GlobalModel:
        spec, started_at = self._context.spec, datetime.now(UTC)
        parameters, state, parent = await (self._inherited() if self._state.origin else self._made_by_a_client())
        model = await self._global_model(parameters)
        manifest = {"app": f"{spec.app} {spec.app_version}", "seed": spec.seed, "parent": parent}
        stored = await self._context.models.save(spec.run_id, 0, parameters, state, manifest)
        metrics = await self._context.evaluate_on_server(parameters)
        now = datetime.now(UTC)
        record = RoundRecord(0, 1, started_at, closed_at=now, committed_at=now, ended_at=now, metrics=metrics)
        await self._context.store.commit_round(self._context.lease, record, stored)
        self._last_stored = stored
        self._note_deciding(0, metrics)
        self._context.events.emit(
            "model.initialised",
            f"The model of round {self._state.origin.model.round_number} of {self._state.origin.run_name}"
            if self._state.origin
            else f"Initial model of {stored.size:,} bytes"
            if spec.signature.is_open
            else f"Initial model of {spec.signature.num_parameters:,} parameters",
            level=Level.ROUND,
            round_number=0,
            data={
                "sha256": stored.sha256,
                "size": stored.size,
                "metrics": [{"source": m.source, "name": m.name, "value": m.value} for m in metrics],
            },
        )
        return model

    async def _made_by_a_client(self) -> tuple[Parameters, Parameters, None]:
        clients = await self._wait_for_clients()
        names = {client_id: client.name for client_id, client in clients.items()}
        parameters = await self._unless_interrupted(Initialisation(self._context).first_of(names))
        return parameters, {}, None

    async def _inherited(self) -> tuple[Parameters, Parameters, dict[str, Any]]:
        """The model of another run, the strategy's state with it, and what the manifest says of where they are from."""
        spec, origin = self._context.spec, self._state.origin
        assert origin is not None  # else a client makes the model
        parameters = await self._context.models.load(origin.model)
        stored = await self._context.models.load_state(origin.model)
        state = carried(stored, spec.signature, origin.strategy, spec.strategy)
        try:
            self._context.strategy.load(state)
        except Exception as error:  # a part of the strategy may be anybody's code
            raise RunFailed(f"The state of {origin.run_name} can't be gone on from: {error}") from error
        record = origin.model
        return parameters, state, {"run": record.run_id, "round": record.round_number, "sha256": record.sha256}

    async def _global_model(self, parameters: Parameters) -> GlobalModel:
        shared, packing = self._context.strategy.shared_of(parameters), self._context.spec.strategy.update.packing
        return await asyncio.to_thread(GlobalModel.of, parameters, shared, packing)

    async def _wait_for_clients(self, number: int = 0) -> dict[str, ClientIdentity]:
        """The eligible clients, when there are enough for round `number`. Raises `RunFailed` if they don't come in time."""
        faults, need = self._context.spec.strategy.faults, self._context.spec.strategy.cohort.min_clients
        give_up_at = time.monotonic() + faults.wait_for_clients_seconds
        announced = -1
        while True:
            self._raise_if_interrupted()
            changed = self._context.hub.changed
            if number:
                await self._read_weights(number)
            clients = self._eligible()
            if len(clients) >= need:
                return clients
            if announced != len(clients):
                announced = len(clients)
                self._context.events.emit(
                    "run.waiting",
                    f"Waiting for clients: {announced} of {need} are online{self._left_out()}",
                    level=Level.WARNING,
                    data={"have": announced, "need": need},
                )
            try:
                async with asyncio.timeout(min(give_up_at - time.monotonic(), LOOK_AGAIN_SECONDS)):
                    await self._unless_interrupted(changed.wait())
            except TimeoutError:
                if time.monotonic() < give_up_at:
                    continue
                raise RunFailed(
                    f"Only {len(clients)} of {need} clients that offer {self._context.spec.app} "
                    f"{self._context.spec.app_version} came online within {faults.wait_for_clients_seconds:g} s"
                    f"{self._left_out()}."
                ) from None

    def _left_out(self) -> str:
        """Words about clients that are there and can't be asked; empty of none."""
        return self._outdated() + self._unavailable()

    def _unavailable(self) -> str:
        spec = self._context.spec
        owners = self._context.hub.unavailable(spec.federation_id, spec.app, spec.app_version, spec.signature)
        reasons = "; ".join(f"{name}: {reason.removesuffix('.')}" for name, reason in sorted(owners.items())[:SHOWN])
        return f"; {len(owners)} more take no tasks now ({reasons})" if owners else ""

    def _outdated(self) -> str:
        """Of agents that are too old for the strategy."""
        number = len(self._eligible(any_agent=True)) - len(self._eligible())
        return f"; {number} more must update fedagent for this strategy" if number else ""

    def _eligible(self, *, any_agent: bool = False) -> dict[str, ClientIdentity]:
        spec = self._context.spec
        minor = 0 if any_agent else spec.strategy.agent_minor
        clients = self._context.hub.eligible(spec.federation_id, spec.app, spec.app_version, spec.signature, minor)
        wanted = spec.strategy.cohort.labels.items()
        return {
            client_id: client
            for client_id, client in clients.items()
            if wanted <= client.labels.items() and self._weights.get(client_id, FULL)
        }

    def _raise_if_interrupted(self) -> None:
        match self._wish:
            case Directive.STOP:
                raise RunStopped
            case Directive.PAUSE | Directive.PAUSE_NOW:
                raise RunPaused

    async def _unless_interrupted(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises `RunStopped` or `RunPaused` as soon as the operator wants it."""
        task = asyncio.create_task(work)
        try:
            while not task.done():
                interrupted = asyncio.create_task(self._interrupted.wait())
                try:
                    await asyncio.wait((task, interrupted), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    interrupted.cancel()
                self._raise_if_interrupted()
            return task.result()
        finally:
            task.cancel()
