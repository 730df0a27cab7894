"""Carries out one attempt at a round: feeds the state machine what happens, and does what it decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from aggregator.context import RunContext, checked_parameters
from aggregator.core import round as machine
from aggregator.core.metrics import numeric, weighted_means
from aggregator.core.round import ClientPhase, Outcome, RoundMachine
from aggregator.core.statistics import RoundStatistics, UpdateStatistics
from aggregator.core.strategies.base import RoundContext, UpdateRejected
from aggregator.core.strategies.base import Update as RuleUpdate
from aggregator.core.strategy import AggregationFailed, RoundAggregation
from aggregator.hub import Assignment, Update, UpdateRefused
from aggregator.models import GlobalModel, Payload
from aggregator.participation import comparisons_json, note_comparison, note_update
from aggregator.ports import Level, MetricRecord, ModelRecord, RoundRecord
from aggregator.spool import FileSpool
from protos import limits
from protos.convert import ScalarValue, scalars_from_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import CodecError, Parameters

T = TypeVar("T")

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2
"""An agent's progress is stored at most this often; a flood of it changes nothing for others."""

_PHASES = {
    task_pb2.PHASE_DOWNLOADING: ClientPhase.DOWNLOADING,
    task_pb2.PHASE_TRAINING: ClientPhase.TRAINING,
    task_pb2.PHASE_UPLOADING: ClientPhase.UPLOADING,
    task_pb2.PHASE_EVALUATING: ClientPhase.EVALUATING,
}
_OUTCOMES = {
    task_pb2.TASK_OUTCOME_FAILED: Outcome.FAILED,
    task_pb2.TASK_OUTCOME_REFUSED: Outcome.REFUSED,
    task_pb2.TASK_OUTCOME_CANCELLED: Outcome.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Cohort:
    """The clients of a round: the name of each by its id."""

    names: Mapping[str, str]
    wanted: int
    """Updates that the round is after."""
    population: int
    """Clients that could have been asked."""


@dataclass(frozen=True, slots=True)
class CommittedRound:
    model: GlobalModel
    stored: ModelRecord
    metrics: Sequence[MetricRecord]
    counted: Mapping[str, int]
    """Of each client whose update is in the model, the round in which it was asked for it."""


@dataclass(slots=True)
class Delivery:
    """An update on its way into the round; `taken` tells the upload how it went."""

    assignment: Assignment
    update: Update
    parameters: Parameters
    taken: asyncio.Future[None]

    def refuse(self, reason: str) -> None:
        if not self.taken.done():  # an agent that has hung up hears nothing any more
            self.taken.set_exception(UpdateRefused(reason))


class RoundDriver:
    """One attempt at a round. `execute` returns what was committed, or None if the round was abandoned."""

    def __init__(
        self,
        context: RunContext,
        number: int,
        attempt: int,
        cohort: Cohort,
        model: GlobalModel,
        counted: Mapping[str, int],
    ) -> None:
        """`counted`: of each client the round in which it was asked for the update of its that was counted last."""
        evaluation = context.spec.strategy.evaluation
        faults = context.spec.strategy.faults
        due = number % evaluation.every == 0 or number == context.spec.num_rounds
        self.reason = ""
        self._context = context
        self._number, self._attempt = number, attempt
        self._cohort = cohort.names
        self._wanted, self._population = cohort.wanted, cohort.population
        self._cohort_size = len(cohort.names)
        self._counted = counted
        self._model = model
        self._next: GlobalModel | None = None
        self._stored: ModelRecord | None = None
        self._evaluation_due = due
        self._machine = RoundMachine(
            tuple(cohort.names),
            wanted=cohort.wanted,
            quorum=faults.quorum,
            deadline_seconds=faults.deadline_seconds,
            evaluate=evaluation.federated and due,
        )
        self._aggregation: RoundAggregation | None = None
        self._inbox: asyncio.Queue[machine.RoundEvent | Delivery] = asyncio.Queue()
        self._assignments: dict[str, Assignment] = {}  # of each client the one that counts now
        self._sent: list[Assignment] = []
        self._phases: dict[str, ClientPhase] = {}
        self._progress_at: dict[str, float] = {}
        self._deadline: asyncio.TimerHandle | None = None
        self._record = RoundRecord(number, attempt, datetime.now(UTC))

    async def execute(self) -> CommittedRound | None:
        await self._context.store.begin_round(self._context.lease, self._with_participations(self._record))
        self._emit_start()
        try:
            await self._begin_aggregation()
            await self._perform_all(self._machine.start(time.monotonic()))
            while self._machine.phase is not machine.RoundPhase.DONE:
                await self._take(await self._inbox.get())
        finally:
            self._close()
        return self._committed()

    def _committed(self) -> CommittedRound | None:
        if self._next is None or self._stored is None:
            return None
        reports = self._machine.participations
        counted = {client_id: self._number - reports[client_id].staleness for client_id in self._machine.completed}
        return CommittedRound(self._next, self._stored, self._record.metrics, counted)

    @property
    def asked(self) -> frozenset[str]:
        return frozenset(self._machine.participations)

    @property
    def completed(self) -> frozenset[str]:
        """The clients whose update has been taken in."""
        return frozenset(self._machine.completed)

    def stop(self, reason: str) -> None:
        """The operator wants the round to end, for this reason."""
        self._inbox.put_nowait(machine.StopRequested(time.monotonic(), reason))

    # --- what the hub tells -----------------------------------------------------------------------------------------

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None:
        entered = _PHASES.get(phase)
        if entered is None or self._phases.get(assignment.client_id) is entered:
            return
        self._phases[assignment.client_id] = entered
        self._inbox.put_nowait(machine.PhaseEntered(time.monotonic(), assignment.client_id, entered))
        self._emit("client.phase", f"{self._name(assignment)} is {entered}", assignment, phase=entered)

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None:
        now, client_id = time.monotonic(), assignment.client_id
        if progress.fraction < 1 and now - self._progress_at.get(client_id, -1.0) < PROGRESS_SECONDS:
            return
        self._progress_at[client_id] = now
        phase = _PHASES.get(progress.phase)
        if phase is None:
            return
        try:
            metrics = numeric(scalars_from_proto(progress.metrics))
        except CodecError:
            metrics = {}
        fraction = min(max(progress.fraction, 0.0), 1.0) if progress.fraction == progress.fraction else 0.0
        message = progress.message or f"{self._name(assignment)}: {phase} {fraction:.0%}"
        self._emit("client.progress", message, assignment, phase=phase, fraction=fraction, metrics=metrics)

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None:
        if not self._is_settled(assignment):
            self._inbox.put_nowait(self._event_of_result(assignment, result))

    def on_lost(self, assignment: Assignment) -> None:
        if self._is_settled(assignment):
            return
        reason = "The connection was lost and did not come back."
        self._inbox.put_nowait(machine.ClientEnded(time.monotonic(), assignment.client_id, Outcome.LOST, reason))

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        try:
            check_num_examples(update)
            parameters = await checked_parameters(update, self._context.strategy.uploaded, self._model.parameters)
        except UpdateRefused as refusal:
            self._reject(assignment.client_id, str(refusal))
            raise
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._machine.phase is machine.RoundPhase.DONE:
            raise UpdateRefused("The round was closed before the update arrived.")
        self._inbox.put_nowait(Delivery(assignment, update, parameters, taken))
        await taken

    def _is_settled(self, assignment: Assignment) -> bool:
        """The task's update has been counted: what follows about it says nothing about the task that came after."""
        outcome = self._machine.participations[assignment.client_id].outcome
        return assignment.uploads and outcome is Outcome.COMPLETED

    def _event_of_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> machine.RoundEvent:
        now, client_id = time.monotonic(), assignment.client_id
        if outcome := _OUTCOMES.get(result.outcome):
            return machine.ClientEnded(now, client_id, outcome, result.reason)
        if assignment.uploads:
            return machine.ClientEnded(now, client_id, Outcome.FAILED, "The agent reported success but sent no update.")
        try:
            metrics = scalars_from_proto(result.metrics)
        except CodecError as error:
            return machine.ClientEnded(now, client_id, Outcome.REJECTED, str(error))
        if not numeric({"loss": result.loss}) or not 1 <= result.num_examples <= limits.MAX_NUM_EXAMPLES:
            reason = "The evaluation has no finite loss, or a number of examples out of range."
            return machine.ClientEnded(now, client_id, Outcome.REJECTED, reason)
        return machine.EvaluationArrived(now, client_id, result.loss, result.num_examples, metrics)

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _take(self, item: machine.RoundEvent | Delivery) -> None:
        if isinstance(item, Delivery):
            await self._take_delivery(item)
            return
        self._announce(item)
        await self._perform_all(self._machine.handle(item))

    async def _take_delivery(self, delivery: Delivery) -> None:
        client_id, update = delivery.assignment.client_id, delivery.update
        if refusal := self._machine.refusal(client_id):
            delivery.refuse(refusal)
            return
        try:
            statistics = await self._aggregate_one(delivery)
        except UpdateRejected as rejection:
            delivery.refuse(str(rejection))
            self._reject(client_id, str(rejection))
            return
        except AggregationFailed as failure:
            delivery.refuse("The round has failed on the server.")
            await self._perform_all(self._machine.handle(machine.AggregationBroke(time.monotonic(), str(failure))))
            return
        participation = self._machine.participations[client_id]
        participation.bytes_up = len(update.buffer)
        participation.bytes_down = delivery.assignment.bytes_down
        note_update(participation, statistics)
        arrived = machine.UpdateArrived(
            time.monotonic(), client_id, update.num_examples, dict(update.metrics), update.sha256
        )
        actions = self._machine.handle(arrived)
        if not delivery.taken.done():
            delivery.taken.set_result(None)
        self._emit_completion(delivery.assignment)
        await self._perform_all(actions)

    async def _perform_all(self, actions: Sequence[machine.Action]) -> None:
        for action in actions:
            await self._perform(action)

    async def _perform(self, action: machine.Action) -> None:
        match action:
            case machine.SendFit(clients):
                await self._send_fit(clients)
            case machine.SendEvaluate(clients):
                assert self._next is not None  # an evaluation follows a commit
                self._phases.clear()
                self._send(
                    clients, task_pb2.TASK_KIND_EVALUATE, self._next.shared, {}, dict.fromkeys(clients, self._number)
                )
            case machine.SetDeadline(seconds):
                self._set_deadline(seconds)
            case machine.Cancel(clients, reason):
                self._cancel(clients, reason)
            case machine.Aggregate(cause):
                await self._aggregate(cause)
            case machine.Abandon(reason):
                await self._abandon(reason)
            case machine.Finish():
                await self._finish()

    async def _send_fit(self, clients: Sequence[str]) -> None:
        try:
            config = self._context.strategy.fit_config(self._number, self._context.spec.num_rounds, self._wanted)
            payload = await self._to_train()
        except AggregationFailed as failure:
            self._inbox.put_nowait(machine.AggregationBroke(time.monotonic(), str(failure)))
            return
        self._send(clients, task_pb2.TASK_KIND_FIT, payload, config, self._counted)

    def _cancel(self, clients: Iterable[str], reason: str) -> None:
        """Those who have been asked already: a round may end before it has asked anybody."""
        for client in clients:
            if assignment := self._assignments.get(client):
                self._context.hub.cancel(assignment, reason)

    def _send(
        self,
        clients: Sequence[str],
        kind: task_pb2.TaskKind.ValueType,
        payload: Payload,
        config: Mapping[str, ScalarValue],
        counted: Mapping[str, int],
    ) -> None:
        for client in clients:
            self._assignments[client] = self._context.assignment(
                self,
                client,
                kind,
                round_number=self._number,
                attempt=self._attempt,
                model=payload,
                config=config,
                counted_round=counted.get(client, 0),
                protection=self._protection(kind),
            )
            self._sent.append(self._assignments[client])
            self._context.hub.assign(self._assignments[client])

    def _protection(self, kind: task_pb2.TaskKind.ValueType) -> task_pb2.Protection | None:
        if kind != task_pb2.TASK_KIND_FIT:
            return None
        return task_pb2.Protection(cohort=self._cohort_size, quorum=self._context.spec.strategy.fewest_updates)

    async def _to_train(self) -> Payload:
        """The global model and what the method sends with it."""
        sent = self._context.strategy.sent_to_train(self._model.parameters)
        if len(sent) == len(self._context.strategy.shared.tensors):
            return self._model.shared
        return await asyncio.to_thread(Payload.of, sent)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(
            seconds, lambda: self._inbox.put_nowait(machine.DeadlinePassed(time.monotonic()))
        )

    async def _aggregate(self, cause: str) -> None:
        closed_at = datetime.now(UTC)
        received, expected = self._machine.received, len(self._machine.participations)
        self._emit(
            "round.closed",
            f"Round {self._number} closed with {received} of {expected} updates ({cause})",
            level=Level.ROUND,
            received=received,
            expected=expected,
            cause=cause,
        )
        try:
            model, statistics, state = await self._limited(self._make_model)
        except AggregationFailed as failure:
            await self._perform_all(self._machine.handle(machine.AggregationBroke(time.monotonic(), str(failure))))
            return
        self._next = model
        note_comparison(self._machine.participations, statistics)
        await self._commit(model, state, closed_at)
        await self._perform_all(self._machine.handle(machine.Committed(time.monotonic())))

    async def _begin_aggregation(self) -> None:
        context = RoundContext(
            round_number=self._number,
            seed=self._context.spec.seed,
            signature=self._context.strategy.shared,
            current=self._context.strategy.shared_of(self._model.parameters),
            cohort_size=self._cohort_size,
            spool=FileSpool,
            population=self._population,
        )
        try:
            self._aggregation = await self._limited(lambda: self._context.strategy.begin(context))
        except AggregationFailed as failure:
            self._inbox.put_nowait(machine.AggregationBroke(time.monotonic(), str(failure)))

    async def _aggregate_one(self, delivery: Delivery) -> UpdateStatistics:
        aggregation = self._aggregation
        if aggregation is None:
            raise AggregationFailed("The aggregation has not begun.")
        return await self._limited(lambda: aggregation.add(self._rule_update(delivery)))

    def _rule_update(self, delivery: Delivery) -> RuleUpdate:
        """What the rule is told of an update."""
        update = delivery.update
        return RuleUpdate(
            delivery.assignment.client_id, delivery.parameters, update.num_examples, numeric(update.metrics)
        )

    def _make_model(self) -> tuple[GlobalModel, RoundStatistics, Parameters]:
        """With what of the round's figures and the strategy's state is stored beside it."""
        assert self._aggregation is not None  # updates have been added to it
        strategy, aggregate = self._context.strategy, self._aggregation.result()
        statistics = self._aggregation.compare(aggregate)
        parameters = self._aggregation.next_model(self._model.parameters, aggregate)
        return GlobalModel.of(parameters, strategy.shared_of(parameters)), statistics, strategy.state()

    async def _limited(self, work: Callable[[], T]) -> T:
        """`work` in a thread, for as long as the strategy may take. Raises `AggregationFailed` when that is over."""
        seconds = self._context.spec.strategy.faults.aggregation_seconds
        try:
            return await asyncio.wait_for(asyncio.to_thread(work), seconds)
        except TimeoutError:
            raise AggregationFailed(f"The aggregation took longer than its limit of {seconds:g} s.") from None

    async def _commit(self, model: GlobalModel, state: Parameters, closed_at: datetime) -> None:
        """Checkpoint first, then one transaction, then the event: a crash between any two loses nothing that was announced."""
        spec = self._context.spec
        manifest = {
            "app": f"{spec.app} {spec.app_version}",
            "seed": spec.seed,
            "attempt": self._attempt,
            "parent": {"round": self._number - 1, "sha256": self._model.shared.ref.sha256},
            "updates": {c: p.update_sha256 for c, p in self._machine.participations.items() if p.update_sha256},
        }
        stored = await self._context.models.save(spec.run_id, self._number, model.parameters, state, manifest)
        self._record = self._with_participations(
            replace(self._record, closed_at=closed_at, committed_at=datetime.now(UTC), metrics=self._fit_metrics())
        )
        await self._context.store.commit_round(self._context.lease, self._record, stored)
        self._stored = stored
        participations = self._record.participations
        self._emit(
            "round.committed",
            f"Round {self._number} committed",
            level=Level.ROUND,
            attempt=self._attempt,
            metrics=[_metric_json(m) for m in self._record.metrics],
            bytes_up=sum(p.bytes_up for p in participations),
            bytes_down=sum(p.bytes_down for p in participations),
            seconds=(datetime.now(UTC) - self._record.started_at).total_seconds(),
            sha256=stored.sha256,
            size=stored.size,
            training=self._training_on(),
            updates=comparisons_json(participations),
        )
        self._emit_flags()

    async def _finish(self) -> None:
        assert self._next is not None  # a round finishes after its commit
        metrics = self._federated_metrics()
        if self._evaluation_due:
            metrics += await self._evaluate_on_server(self._next)
        self._record = self._with_participations(
            replace(self._record, ended_at=datetime.now(UTC), metrics=[*self._record.metrics, *metrics])
        )
        await self._context.store.record_evaluation(self._context.lease, self._record)
        if metrics:
            self._emit(
                "round.evaluated",
                f"Round {self._number} evaluated: {_metrics_text(metrics)}",
                level=Level.ROUND,
                metrics=[_metric_json(m) for m in metrics],
            )

    async def _evaluate_on_server(self, model: GlobalModel) -> list[MetricRecord]:
        try:
            return await self._context.evaluate_on_server(model.parameters)
        except Exception as error:  # an evaluator is a plug-in: its bugs must not end a run that is committed
            logger.exception("The evaluator failed", extra={"run_id": self._context.spec.run_id})
            self._emit("round.evaluation_failed", f"The server's evaluation failed: {error}", level=Level.ERROR)
            return []

    async def _abandon(self, reason: str) -> None:
        self.reason = reason
        self._record = self._with_participations(replace(self._record, ended_at=datetime.now(UTC)))
        await self._context.store.abandon_round(self._context.lease, self._record, reason)
        self._emit(
            "round.abandoned",
            f"Round {self._number} abandoned. {reason}",
            level=Level.WARNING,
            reason=reason,
            training=self._training_on(),
        )

    def _training_on(self) -> list[str]:
        """Ids of the clients that go on with their work when the round is over."""
        return []

    def _close(self) -> None:
        """Leave nothing behind that could reach this round: no timer, no task, no upload that waits, no spooled update."""
        if self._aggregation:
            self._aggregation.close()
        if self._deadline:
            self._deadline.cancel()
        self._cancel(self._machine.pending, "The round was interrupted.")
        for assignment in self._sent:
            self._context.hub.withdraw(assignment)
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            if isinstance(item, Delivery):
                item.refuse("The round was closed before the update arrived.")

    def _reject(self, client_id: str, reason: str) -> None:
        self._inbox.put_nowait(machine.ClientEnded(time.monotonic(), client_id, Outcome.REJECTED, reason))

    # --- figures and events -----------------------------------------------------------------------------------------

    def _with_participations(self, record: RoundRecord) -> RoundRecord:
        return replace(record, participations=[replace(p) for p in self._machine.participations.values()])

    def _fit_metrics(self) -> list[MetricRecord]:
        reports = [
            (numeric(p.metrics), p.num_examples) for p in self._machine.participations.values() if p.num_examples
        ]
        return [MetricRecord("fit", name, *mean) for name, mean in weighted_means(reports).items()]

    def _federated_metrics(self) -> list[MetricRecord]:
        reports = [
            (numeric({**p.evaluation_metrics, "loss": p.evaluation_loss}), p.evaluation_num_examples)
            for p in self._machine.participations.values()
            if p.evaluation_num_examples and p.evaluation_loss is not None
        ]
        return [MetricRecord("federated", name, *mean) for name, mean in weighted_means(reports).items()]

    def _announce(self, event: machine.RoundEvent) -> None:
        """Tell what a client's part came to, before the machine draws its conclusions for the round."""
        match event:
            case machine.EvaluationArrived(_, client_id, loss, num_examples, metrics):
                self._emit(
                    "client.evaluated",
                    f"{self._cohort[client_id]} evaluated the model: loss {loss:.4g}",
                    self._assignments[client_id],
                    loss=loss,
                    num_examples=num_examples,
                    metrics=numeric(metrics),
                )
            case machine.ClientEnded(_, client_id, outcome, reason) if client_id in self._machine.pending:
                self._emit_failure(client_id, outcome, reason)
            case machine.DeadlinePassed():
                for client_id in self._machine.pending:
                    self._emit_failure(client_id, Outcome.LATE, "The deadline has passed.")

    def _emit_start(self) -> None:
        self._emit(
            "round.started",
            f"Round {self._number} started with {len(self._cohort)} clients",
            level=Level.ROUND,
            attempt=self._attempt,
            cohort=[{"id": client_id, "name": name} for client_id, name in self._cohort.items()],
            deadline_seconds=self._context.spec.strategy.faults.deadline_seconds,
        )

    def _emit_completion(self, assignment: Assignment, **more: Any) -> None:
        report = self._machine.participations[assignment.client_id]
        self._emit(
            "client.completed",
            f"{self._name(assignment)} sent its update ({report.num_examples:,} examples)",
            assignment,
            num_examples=report.num_examples,
            metrics=numeric(report.metrics),
            bytes_up=report.bytes_up,
            bytes_down=report.bytes_down,
            download_seconds=report.download_seconds,
            train_seconds=report.train_seconds,
            upload_seconds=report.upload_seconds,
            update_norm=report.update_norm,
            update_largest=report.update_largest,
            **more,
        )

    def _emit_flags(self) -> None:
        for client_id, report in self._machine.participations.items():
            if report.flagged:
                self._emit(
                    "client.flagged",
                    f"{self._cohort[client_id]} is unlike the others: {report.flag_reason}",
                    self._assignments[client_id],
                    level=Level.WARNING,
                    reason=report.flag_reason,
                    norm_ratio=report.norm_ratio,
                    cosine_to_aggregate=report.cosine_to_aggregate,
                )

    def _emit_failure(self, client_id: str, outcome: Outcome, reason: str) -> None:
        """A refusal is its owner's right, and no failure."""
        refused = outcome is Outcome.REFUSED
        self._emit(
            "client.refused" if refused else "client.failed",
            f"{self._cohort[client_id]}: {outcome}. {reason}",
            self._assignments[client_id],
            level=Level.INFO if refused else Level.WARNING,
            outcome=outcome,
            reason=reason,
        )

    def _emit(
        self, kind: str, message: str, assignment: Assignment | None = None, level: Level = Level.INFO, **data: Any
    ) -> None:
        client_id = assignment.client_id if assignment else None
        if assignment:
            data = {"name": self._name(assignment), **data}
        self._context.events.emit(kind, message, level=level, round_number=self._number, client_id=client_id, data=data)

    def _name(self, assignment: Assignment) -> str:
        return self._cohort[assignment.client_id]


def check_num_examples(update: Update) -> None:
    if not 1 <= update.num_examples <= limits.MAX_NUM_EXAMPLES:
        raise UpdateRefused(
            f"The update counts {update.num_examples:,} examples; between 1 and {limits.MAX_NUM_EXAMPLES:,} are allowed."
        )


def _metric_json(metric: MetricRecord) -> dict[str, Any]:
    return {
        "source": metric.source,
        "name": metric.name,
        "value": metric.value,
        "num_examples": metric.num_examples,
    }


def _metrics_text(metrics: Sequence[MetricRecord]) -> str:
    return ", ".join(f"{m.source} {m.name} {m.value:.4g}" for m in metrics)
