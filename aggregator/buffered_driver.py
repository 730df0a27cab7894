"""Carries out the rounds of a buffered run (FedBuff): `RoundDriver` with clients that train on while rounds come and go."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from aggregator import log_context
from aggregator.context import RunContext, checked_parameters
from aggregator.core import round as machine
from aggregator.core.buffered import BufferMachine, Training
from aggregator.core.modes import Buffered
from aggregator.core.round import ClientPhase, Outcome
from aggregator.core.staleness import moved
from aggregator.core.strategies.base import Update as RuleUpdate
from aggregator.hub import Assignment, Update, UpdateRefused
from aggregator.models import GlobalModel, Payload
from aggregator.ports import ClientIdentity, MetricRecord
from aggregator.round_driver import Cohort, CommittedRound, RoundDriver
from aggregator.round_listener import Delivery, check_num_examples
from aggregator.round_model import RoundModel
from aggregator.round_story import RoundStory
from protos.convert import ScalarValue
from protos.fedui.v1 import task_pb2

OF_A_TASK = machine.PhaseEntered | machine.ClientEnded | machine.TaskWaits | machine.TaskHanded
"""What is said of a client's task, in whichever round it is heard."""


@dataclass(slots=True, eq=False)
class Flight:
    """A client that has been asked and has not answered; keeps the model that its update will start from."""

    assignment: Assignment
    base: GlobalModel
    timer: asyncio.TimerHandle | None = None
    closed: str = ""
    """Why its update isn't wanted any more."""


@dataclass(slots=True)
class Fleet:
    """What of a buffered run outlives its rounds. Listens to the hub, and hands on to the round that is open or was last.

    A flight ends with the first final word about it. So nothing that follows is taken for the client's next task.
    """

    eligible: Callable[[], Mapping[str, ClientIdentity]]
    training: dict[str, Training] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    inbox: asyncio.Queue[machine.RoundEvent | Delivery] = field(default_factory=asyncio.Queue)
    phases: dict[str, ClientPhase] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    flights: dict[Assignment, Flight] = field(default_factory=dict)
    delivered: dict[Assignment, Flight] = field(default_factory=dict)
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    round: BufferedRoundDriver | None = None

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None:
        if self.round and assignment in self.flights:
            self.round.on_phase(assignment, phase)

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None:
        if self.round and assignment in self.flights:
            self.round.on_progress(assignment, progress)

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None:
        if self.round and self.land(assignment):
            self.round.on_result(assignment, result)

    def on_lost(self, assignment: Assignment) -> None:
        if self.round and self.land(assignment):
            self.round.on_lost(assignment)

    def on_handed(self, assignment: Assignment) -> None:
        if self.round and assignment in self.flights:
            self.round.on_handed(assignment)

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        if self.round is None:
            raise UpdateRefused("The run has ended.")
        await self.round.on_update(assignment, update)

    def land(self, assignment: Assignment) -> Flight | None:
        """The flight, which is over now; None if it was over already. Nobody trains from its model any more."""
        flight = self.flights.pop(assignment, None)
        if flight and flight.timer:
            flight.timer.cancel()
        assignment.forget_model()
        return flight

    def forget(self, clients: Collection[str]) -> None:
        """They are about to be asked anew: what was said of their last tasks and not heard yet is no word on the new ones."""
        for _ in range(self.inbox.qsize()):
            item = self.inbox.get_nowait()
            if not isinstance(item, OF_A_TASK) or item.client_id not in clients:
                self.inbox.put_nowait(item)

    def close(self, context: RunContext) -> None:
        """The run ends, or another engine goes on with it."""
        self.round = None
        for assignment in list(self.flights):
            self.land(assignment)
            context.hub.cancel(assignment, "The run has ended.")
        for assignment in self.assignments.values():
            context.hub.withdraw(assignment)
        while not self.inbox.empty():
            item = self.inbox.get_nowait()
            if isinstance(item, Delivery):
                item.refuse("The run has ended.")


class BufferedRoundDriver(RoundDriver):
    """One attempt at a round of a buffered run: until its buffer is full."""

    _machine: BufferMachine

    def __init__(
        self,
        context: RunContext,
        number: int,
        attempt: int,
        model: GlobalModel,
        counted: Mapping[str, int],
        mode: Buffered,
        fleet: Fleet,
        weights: Mapping[str, int],
    ) -> None:
        eligible = fleet.eligible()
        cohort = Cohort(fleet.names, mode.buffer_size, len(eligible))
        super().__init__(context, number, attempt, cohort, model, counted, fleet.eligible, weights)
        self._story = RoundStory(context.events, number, attempt, fleet.names)
        self._fleet, self._mode = fleet, mode
        self._cohort_size = mode.buffer_size
        self._making = RoundModel(context, number, model, mode.buffer_size, self._population)
        self._inbox, self._phases, self._assignments = fleet.inbox, fleet.phases, fleet.assignments
        fleet.asked = Counter({key: times for key, times in fleet.asked.items() if key[1] == number})
        self._learn_names(eligible)
        self._machine = BufferMachine(
            mode,
            number,
            seed=context.spec.seed,
            eligible=eligible,
            training=fleet.training,
            wait_seconds=context.spec.strategy.faults.wait_for_clients_seconds,
        )
        fleet.round = self

    async def execute(self) -> CommittedRound | None:
        log_context.bind(round=self._number)
        actions = self._machine.start(time.monotonic())
        await self._context.store.begin_round(self._context.lease, self._with_participations(self._record))
        self._tell_start()
        watch = asyncio.create_task(self._watch_clients())
        try:
            await self._begin_aggregation()
            await self._perform_all(actions)
            while self._machine.phase is not machine.RoundPhase.DONE:
                await self._take(await self._inbox.get())
        finally:
            watch.cancel()
            self._close()
        return self._committed()

    async def _watch_clients(self) -> None:
        """Who connects in the middle of the round is asked at once."""
        while True:
            changed = self._context.hub.changed
            eligible = self._fleet.eligible()
            self._learn_names(eligible)
            self._inbox.put_nowait(machine.ClientsChanged(time.monotonic(), frozenset(eligible)))
            await changed.wait()

    def _learn_names(self, clients: Mapping[str, ClientIdentity]) -> None:
        self._fleet.names.update({client_id: client.name for client_id, client in clients.items()})

    # --- what the hub tells -----------------------------------------------------------------------------------------

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        self._check_open(assignment)
        try:
            check_num_examples(update)
            base = self._fleet.flights[assignment].base.parameters
            parameters = await checked_parameters(update, self._context.strategy.uploaded, base)
        except UpdateRefused as refusal:
            if self._fleet.land(assignment):
                self._reject(assignment.client_id, str(refusal))
            raise
        self._check_open(assignment)  # time has passed
        flight = self._fleet.land(assignment)
        assert flight is not None  # it was open a line ago
        self._fleet.delivered[assignment] = flight
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(Delivery(assignment, update, parameters, taken))
        await taken

    def _check_open(self, assignment: Assignment) -> None:
        if assignment not in self._fleet.flights:
            raise UpdateRefused("The task was closed before the update arrived, or its update is here already.")

    def _is_settled(self, assignment: Assignment) -> bool:
        return False  # the fleet hands on only what is news

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _take_delivery(self, delivery: Delivery) -> None:
        flight = self._fleet.delivered[delivery.assignment]
        try:
            if flight.closed:
                delivery.refuse(flight.closed)
            else:
                await super()._take_delivery(delivery)
        finally:
            self._fleet.delivered.pop(delivery.assignment, None)

    def _rule_update(self, delivery: Delivery) -> RuleUpdate:
        update, base = super()._rule_update(delivery), self._fleet.delivered[delivery.assignment].base
        if self._mode.weighting == "uniform":
            update = RuleUpdate(update.client_id, update.parameters, self._weight(update.client_id), update.metrics)
        scale = self._mode.scale(self._machine.staleness(update.client_id))
        return moved(update, base.parameters, self._model.parameters, scale)

    def _send(
        self,
        clients: Sequence[str],
        kind: task_pb2.TaskKind.ValueType,
        payload: Payload,
        config: Mapping[str, ScalarValue],
        counted: Mapping[str, int],
    ) -> None:
        if self._deadline:
            self._deadline.cancel()  # the wait for clients is over
        self._fleet.forget(frozenset(clients))
        for client in clients:
            if earlier := self._assignments.get(client):
                self._context.hub.withdraw(earlier)
            self._fleet.asked[client, self._number] += 1
            assignment = self._context.assignment(
                self._fleet,
                client,
                kind,
                round_number=self._number,
                attempt=self._fleet.asked[
                    client, self._number
                ],  # a task of its own, whenever the client is asked again
                model=payload,
                config=config,
                counted_round=counted.get(client, 0),
                protection=self._protection(kind),
            )
            self._phases.pop(client, None)
            self._assignments[client] = assignment
            self._fleet.flights[assignment] = Flight(assignment, self._model)
            self._hand(assignment)

    def _watch(self, assignment: Assignment) -> None:
        """From now on the client has its time, which is its own where its history says so."""
        seconds = self._context.spec.strategy.faults.deadline_seconds
        reason = f"No update within {seconds:g} s."
        if own := self._context.own_deadline(assignment.client_id):
            seconds, reason = own.seconds, own.reason
            self._story.expects(assignment.client_id, own)
        timer = asyncio.get_running_loop().call_later(seconds, self._is_late, assignment, reason)
        self._fleet.flights[assignment].timer = timer

    def _is_late(self, assignment: Assignment, reason: str) -> None:
        """Whichever round is open by now: its inbox is the same."""
        if self._fleet.land(assignment):
            self._inbox.put_nowait(machine.ClientEnded(time.monotonic(), assignment.client_id, Outcome.LATE, reason))

    async def _perform(self, action: machine.Action) -> None:
        if isinstance(action, machine.Cancel):
            for client in action.client_ids:
                self._call_off(self._assignments[client], action.reason)
        await super()._perform(action)

    def _call_off(self, assignment: Assignment, reason: str) -> None:
        self._fleet.land(assignment)
        if delivered := self._fleet.delivered.get(assignment):
            delivered.closed = reason

    def _close(self) -> None:
        """Clients train on, and what they have said meanwhile is for the next round."""
        self._making.close()
        if self._deadline:
            self._deadline.cancel()
        self._fleet.training = self._machine.training
        for _ in range(self._inbox.qsize()):
            item = self._inbox.get_nowait()
            if isinstance(item, Delivery | OF_A_TASK):
                self._inbox.put_nowait(item)

    def _announce(self, event: machine.RoundEvent) -> None:
        if not isinstance(event, machine.DeadlinePassed):  # which ends the wait for clients: nobody is late by it
            super()._announce(event)

    # --- figures and events -----------------------------------------------------------------------------------------

    def _fit_metrics(self) -> list[MetricRecord]:
        clients = self._machine.completed
        examples = sum(self._machine.participations[c].num_examples or 0 for c in clients)
        mean = math.fsum(map(self._machine.staleness, clients)) / len(clients)
        reported = [m for m in super()._fit_metrics() if m.name != "staleness"]
        return [*reported, MetricRecord("fit", "staleness", mean, examples)]

    def _tell_start(self) -> None:
        known = self._machine.pending
        words = f"Round {self._number} started: {len(known)} clients train, and {self._mode.buffer_size} updates end it"
        self._story.started(words, known, self._context.spec.strategy.faults.deadline_seconds)

    def _tell_completion(self, client_id: str) -> None:
        self._story.completed(self._machine.participations[client_id], staleness=self._machine.staleness(client_id))

    def _training_on(self) -> list[str]:
        return list(self._machine.training)
