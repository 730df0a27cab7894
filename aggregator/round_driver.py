"""Carries out one attempt at a round: feeds the state machine what happens, and does what it decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from aggregator import log_context
from aggregator.context import OwnDeadline, RunContext
from aggregator.core import round as machine
from aggregator.core.metrics import numeric
from aggregator.core.round import RoundMachine
from aggregator.core.strategies.base import Update as RuleUpdate
from aggregator.core.strategies.base import UpdateRejected
from aggregator.core.strategy import AggregationFailed
from aggregator.failpoints import failpoint
from aggregator.hub import Assignment
from aggregator.models import NO_MODEL, GlobalModel, Payload
from aggregator.participation import note_comparison, note_update
from aggregator.ports import MetricRecord, ModelRecord, RoundRecord
from aggregator.round_figures import federated_metrics, fit_metrics
from aggregator.round_listener import Delivery, RoundListener
from aggregator.round_model import RoundModel
from aggregator.round_story import RoundStory
from protos.convert import ScalarValue
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters

logger = logging.getLogger(__name__)


FULL = 100
"""Per cent that a client counts for, unless an operator has ordered otherwise."""
INTERRUPTED = "The round was interrupted."
EXCLUDED = "An operator has excluded the client from this run."


@dataclass(frozen=True, slots=True)
class Cohort:
    """The clients of a round: the name of each by its id."""

    names: Mapping[str, str]
    wanted: int
    """Updates that the round is after."""
    population: int
    """Clients that could have been asked."""
    reserve: Mapping[str, str] = field(default_factory=dict)
    """Those that could replace who drops out, the first to be asked first: the name of each by its id."""


@dataclass(frozen=True, slots=True)
class CommittedRound:
    model: GlobalModel
    stored: ModelRecord
    metrics: Sequence[MetricRecord]
    counted: Mapping[str, int]
    """Of each client whose update is in the model, the round in which it was asked for it."""


class RoundDriver(RoundListener):
    """One attempt at a round. `execute` returns what was committed, or None if the round was abandoned."""

    def __init__(
        self,
        context: RunContext,
        number: int,
        attempt: int,
        cohort: Cohort,
        model: GlobalModel,
        counted: Mapping[str, int],
        eligible: Callable[[], Collection[str]],
        weights: Mapping[str, int],
    ) -> None:
        """`counted`: of each client the round in which it was asked for the update of its that was counted last.

        `eligible` says who could be asked now, `weights` what clients count for in per cent; who isn't named counts in full.
        """
        evaluation = context.spec.strategy.evaluation
        faults = context.spec.strategy.faults
        due = number % evaluation.every == 0 or number == context.spec.num_rounds
        super().__init__()
        self.reason = ""
        self._context = context
        self._number, self._attempt = number, attempt
        self._cohort = cohort.names
        self._wanted, self._population = cohort.wanted, cohort.population
        self._cohort_size = len(cohort.names)
        self._counted, self._eligible, self._weights = counted, eligible, weights
        self._reserve = tuple(cohort.reserve) if faults.replace else ()
        self._model = model
        self._next: GlobalModel | None = None
        self._stored: ModelRecord | None = None
        self._evaluated_here = due and evaluation.server and context.evaluator is not None
        self._measured = self._evaluated_here or (due and evaluation.federated)
        self._machine = RoundMachine(
            tuple(cohort.names),
            wanted=cohort.wanted,
            quorum=faults.quorum,
            deadline_seconds=faults.deadline_seconds,
            evaluate=evaluation.federated and due,
            reserve=self._reserve,
            usual_seconds=context.usual_seconds(self._reserve),
            wait_seconds=faults.wait_for_clients_seconds,
        )
        self._making = RoundModel(context, number, model, self._cohort_size, self._population)
        self._story = RoundStory(context.events, number, attempt, {**cohort.names, **cohort.reserve})
        self._own_timers: dict[str, asyncio.TimerHandle] = {}
        self._assignments: dict[str, Assignment] = {}  # of each client the one that counts now
        self._sent: list[Assignment] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._record = RoundRecord(number, attempt, datetime.now(UTC))

    async def execute(self) -> CommittedRound | None:
        log_context.bind(round=self._number)
        await failpoint("select", self._number)
        await self._context.store.begin_round(self._context.lease, self._with_participations(self._record))
        self._tell_start()
        try:
            await self._begin_aggregation()
            await self._perform_all(self._machine.start(time.monotonic()))
            while self._machine.phase is not machine.RoundPhase.DONE:
                await self._take(await self._inbox.get())
        finally:
            self._close()
        return self._committed()

    def _committed(self) -> CommittedRound | None:
        """Once: clients that come late still know the round, which keeps no model for them."""
        model, self._next, self._model = self._next, None, NO_MODEL
        if model is None or self._stored is None:
            return None
        reports = self._machine.participations
        counted = {client_id: self._number - reports[client_id].staleness for client_id in self._machine.completed}
        return CommittedRound(model, self._stored, self._record.metrics, counted)

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

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _take(self, item: machine.RoundEvent | Delivery) -> None:
        if isinstance(item, Delivery):
            try:
                await self._take_delivery(item)
            finally:
                item.refuse(INTERRUPTED)  # unless it has its answer: an upload without one would wait for ever
            return
        if self._reserve and isinstance(item, machine.ClientEnded | machine.OwnDeadlinePassed):
            self._see_who_could_replace()
        self._announce(item)
        await self._perform_all(self._machine.handle(item))

    def _see_who_could_replace(self) -> None:
        """Who is there and free: one that is busy in other runs would come too late."""
        there = frozenset(c for c in self._eligible() if not self._context.hub.at_work_for(c))
        self._machine.handle(machine.ClientsChanged(time.monotonic(), there))

    async def _take_delivery(self, delivery: Delivery) -> None:
        client_id, update = delivery.assignment.client_id, delivery.update
        await failpoint("collect", self._number)
        if refusal := self._machine.refusal(client_id):
            delivery.refuse(refusal)
            return
        if not self._weights.get(client_id, FULL):  # asked before it was excluded, in a buffered run
            delivery.refuse(EXCLUDED)
            self._reject(client_id, EXCLUDED)
            return
        try:
            statistics = await self._making.add(lambda: self._rule_update(delivery))
        except UpdateRejected as rejection:
            delivery.refuse(str(rejection))
            self._reject(client_id, str(rejection))
            return
        except AggregationFailed as failure:
            delivery.refuse("The round has failed on the server.")
            await self._perform_all(self._machine.handle(machine.AggregationBroke(time.monotonic(), str(failure))))
            return
        participation = self._machine.participations[client_id]
        participation.bytes_up = update.bytes_on_the_wire
        participation.bytes_down = delivery.assignment.bytes_down
        if update.work:
            participation.steps_done, participation.steps_planned = update.work.done, update.work.planned
        note_update(participation, statistics)
        arrived = machine.UpdateArrived(
            time.monotonic(), client_id, update.num_examples, dict(update.metrics), update.sha256
        )
        actions = self._machine.handle(arrived)
        if not delivery.taken.done():
            delivery.taken.set_result(None)
        self._note_completion(delivery.assignment)
        self._tell_completion(client_id)
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
            case machine.Cancel(clients, reason, late):
                self._cancel(clients, reason, late=late)
            case machine.HoldClock(in_hand, needed):
                self._story.waits_for_busy(in_hand, needed)
            case machine.StartClock(in_hand):
                self._story.waits_no_more(in_hand)
            case machine.Aggregate(cause):
                await self._aggregate(cause)
            case machine.Abandon(reason):
                await self._abandon(reason)
            case machine.Finish():
                await self._finish()

    async def _send_fit(self, clients: Sequence[str]) -> None:
        await failpoint("dispatch", self._number)
        try:
            config = self._context.strategy.fit_config(self._number, self._context.spec.num_rounds, self._wanted)
            payload = await self._to_train()
        except AggregationFailed as failure:
            self._inbox.put_nowait(machine.AggregationBroke(time.monotonic(), str(failure)))
            return
        self._send(clients, task_pb2.TASK_KIND_FIT, payload, config, self._counted)

    def _cancel(self, clients: Iterable[str], reason: str, *, late: bool = False) -> None:
        """Those who have been asked already: a round may end before it has asked anybody."""
        for client in clients:
            if (assignment := self._assignments.get(client)) is None:
                continue
            if late:
                self._context.history.missed(client)
                told = partial(self._story.late, self._machine.participations[client])
                self._context.hub.close_late(assignment, reason, told)
            else:
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
            self._hand(self._assignments[client])

    def _hand(self, assignment: Assignment) -> None:
        client_id = assignment.client_id
        if (report := self._machine.participations[client_id]).replaces and assignment.uploads:
            self._story.replaced(report)
        if self._context.hub.assign(assignment):
            self._watch(assignment)
            return
        self._story.waits(client_id, self._context.hub.at_work_for(client_id))
        self._inbox.put_nowait(machine.TaskWaits(time.monotonic(), client_id))

    def on_handed(self, assignment: Assignment) -> None:
        super().on_handed(assignment)
        self._watch(assignment)

    def _watch(self, assignment: Assignment) -> None:
        """Have the machine told when the client takes far longer than it usually does."""
        client_id, own = assignment.client_id, self._context.own_deadline(assignment.client_id)
        if not assignment.uploads or own is None:
            return
        self._story.expects(client_id, own)
        loop = asyncio.get_running_loop()
        self._own_timers[client_id] = loop.call_later(own.seconds, self._take_too_long, assignment, own)

    def _take_too_long(self, assignment: Assignment, own: OwnDeadline) -> None:
        """A client that may send unfinished work is asked for it, and has the round's time to send it."""
        client_id = assignment.client_id
        if self._context.spec.strategy.takes_partial_work and self._context.hub.ask_to_finish(assignment, own.reason):
            self._story.asked_to_finish(client_id, own)
        else:
            self._inbox.put_nowait(machine.OwnDeadlinePassed(time.monotonic(), client_id, own.reason))

    def _note_completion(self, assignment: Assignment) -> None:
        self._context.hub.release(assignment)
        if timer := self._own_timers.pop(assignment.client_id, None):
            timer.cancel()
        self._context.note_pace(self._machine.participations[assignment.client_id])

    def _protection(self, kind: task_pb2.TaskKind.ValueType) -> task_pb2.Protection | None:
        if kind != task_pb2.TASK_KIND_FIT:
            return None
        return task_pb2.Protection(cohort=self._cohort_size, quorum=self._context.spec.strategy.fewest_updates)

    async def _to_train(self) -> Payload:
        """The global model and what the method sends with it."""
        sent = self._context.strategy.sent_to_train(self._model.parameters)
        if len(sent) == len(self._context.strategy.shared.tensors):
            return self._model.shared
        return await asyncio.to_thread(Payload.of, sent, self._context.spec.strategy.update.packing)

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline:
            self._deadline.cancel()
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(
            seconds, lambda: self._inbox.put_nowait(machine.DeadlinePassed(time.monotonic()))
        )

    async def _aggregate(self, cause: str) -> None:
        closed_at = datetime.now(UTC)
        self._story.closed(self._machine.received, self._machine.expected, cause)
        await failpoint("aggregate", self._number)
        try:
            model, statistics, state = await self._making.finish()
        except AggregationFailed as failure:
            await self._perform_all(self._machine.handle(machine.AggregationBroke(time.monotonic(), str(failure))))
            return
        self._next = model
        note_comparison(self._machine.participations, statistics)
        await self._commit(model, state, closed_at)
        await self._perform_all(self._machine.handle(machine.Committed(time.monotonic())))

    async def _begin_aggregation(self) -> None:
        try:
            await self._making.begin()
        except AggregationFailed as failure:
            self._inbox.put_nowait(machine.AggregationBroke(time.monotonic(), str(failure)))

    def _rule_update(self, delivery: Delivery) -> RuleUpdate:
        """What the rule is told of an update: where an operator has changed weights, of all in hundredths, and so without rounding."""
        update = delivery.update
        steps = update.work.done if update.work and update.work.is_partial else 0
        client_id, metrics = delivery.assignment.client_id, numeric(update.metrics)
        weight = update.num_examples * self._weight(client_id)
        return RuleUpdate(client_id, delivery.parameters, weight, metrics, steps)

    def _weight(self, client_id: str) -> int:
        return self._weights.get(client_id, FULL) if any(self._weights.values()) else 1

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
        await failpoint("checkpoint", self._number)
        stored = await self._context.models.save(spec.run_id, self._number, model.parameters, state, manifest)
        now = datetime.now(UTC)
        ended_at = None if self._measured else now
        self._record = self._with_participations(
            replace(self._record, closed_at=closed_at, committed_at=now, ended_at=ended_at, metrics=self._fit_metrics())
        )
        await failpoint("commit", self._number)
        await self._context.store.commit_round(self._context.lease, self._record, stored)
        await failpoint("announce", self._number)
        self._stored = stored
        self._story.committed(self._record, stored, self._training_on())

    async def _finish(self) -> None:
        assert self._next is not None  # a round finishes after its commit
        await failpoint("evaluate", self._number)
        if not self._measured:
            return  # all is written
        metrics = federated_metrics(self._machine.participations.values())
        if self._evaluated_here:
            metrics += await self._evaluate_on_server(self._next)
        self._record = self._with_participations(
            replace(self._record, ended_at=datetime.now(UTC), metrics=[*self._record.metrics, *metrics])
        )
        await self._context.store.record_evaluation(self._context.lease, self._record)
        if metrics:
            self._story.evaluated(metrics)

    async def _evaluate_on_server(self, model: GlobalModel) -> list[MetricRecord]:
        try:
            return await self._context.evaluate_on_server(model.parameters)
        except Exception as error:  # an evaluator is a plug-in: its bugs must not end a run that is committed
            logger.exception("The evaluator failed", extra={"run_id": self._context.spec.run_id})
            self._story.server_evaluation_failed(error)
            return []

    async def _abandon(self, reason: str) -> None:
        self.reason = reason
        self._record = self._with_participations(replace(self._record, ended_at=datetime.now(UTC)))
        await self._context.store.abandon_round(self._context.lease, self._record, reason)
        self._story.abandoned(reason, self._training_on())

    def _training_on(self) -> list[str]:
        """Ids of the clients that go on with their work when the round is over."""
        return []

    def _close(self) -> None:
        """Leave nothing behind that could reach this round: no timer, no task, no upload that waits, no spooled update."""
        self._making.close()
        if self._deadline:
            self._deadline.cancel()
        for timer in self._own_timers.values():
            timer.cancel()
        self._cancel(self._machine.pending, INTERRUPTED)
        for assignment in self._sent:
            self._context.hub.withdraw(assignment)
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            if isinstance(item, Delivery):
                item.refuse("The round was closed before the update arrived.")

    def _with_participations(self, record: RoundRecord) -> RoundRecord:
        return replace(record, participations=[replace(p) for p in self._machine.participations.values()])

    def _fit_metrics(self) -> list[MetricRecord]:
        return fit_metrics(self._machine.participations.values())

    def _announce(self, event: machine.RoundEvent) -> None:
        self._story.happens(event, self._machine)

    def _tell_start(self) -> None:
        words = f"Round {self._number} started with {len(self._cohort)} clients"
        self._story.started(words, self._cohort, self._context.spec.strategy.faults.deadline_seconds)

    def _tell_completion(self, client_id: str) -> None:
        self._story.completed(self._machine.participations[client_id])
