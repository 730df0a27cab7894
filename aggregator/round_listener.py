"""What the hub tells a round of its clients, as events for its state machine."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from aggregator.context import RunContext, checked_parameters
from aggregator.core import round as machine
from aggregator.core.metrics import numeric
from aggregator.core.round import ClientPhase, Outcome, RoundMachine
from aggregator.hub import Assignment, Update, UpdateRefused
from aggregator.models import GlobalModel
from aggregator.round_story import RoundStory
from protos import limits
from protos.convert import scalars_from_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import CodecError, Parameters

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


class RoundListener:
    """Puts into the inbox what comes of the round's assignments. The driver takes it out."""

    _context: RunContext
    _model: GlobalModel
    _machine: RoundMachine
    _story: RoundStory

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[machine.RoundEvent | Delivery] = asyncio.Queue()
        self._phases: dict[str, ClientPhase] = {}
        self._heard: dict[str, dict[str, float]] = {}  # when of each client, and what

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None:
        entered, client_id = _PHASES.get(phase), assignment.client_id
        if entered is None or self._phases.get(client_id) is entered or not self._is_news(client_id, entered):
            return
        self._phases[client_id] = entered
        self._inbox.put_nowait(machine.PhaseEntered(time.monotonic(), client_id, entered))
        self._story.entered(client_id, entered)

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None:
        client_id, phase = assignment.client_id, _PHASES.get(progress.phase)
        if phase is None or not self._is_news(client_id, f"{phase} is done" if progress.fraction >= 1 else ""):
            return
        try:
            metrics = numeric(scalars_from_proto(progress.metrics))
        except CodecError:
            metrics = {}
        fraction = min(max(progress.fraction, 0.0), 1.0) if progress.fraction == progress.fraction else 0.0
        self._story.progressed(client_id, phase, fraction, metrics, progress.message)

    def _is_news(self, client_id: str, first: str) -> bool:
        """So much of what a client says is stored: little at a time, and besides what it says for the first time."""
        now, heard = time.monotonic(), self._heard.setdefault(client_id, {})
        if first and first not in heard:
            heard[first] = now
            return True
        if now - heard.get("", -math.inf) < PROGRESS_SECONDS:
            return False
        heard[""] = now
        return True

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None:
        if not self._is_settled(assignment):
            self._inbox.put_nowait(self._event_of_result(assignment, result))

    def on_lost(self, assignment: Assignment) -> None:
        if self._is_settled(assignment):
            return
        reason = "The connection was lost and did not come back."
        self._inbox.put_nowait(machine.ClientEnded(time.monotonic(), assignment.client_id, Outcome.LOST, reason))

    def on_handed(self, assignment: Assignment) -> None:
        self._inbox.put_nowait(machine.TaskHanded(time.monotonic(), assignment.client_id))

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        self._raise_if_done()
        try:
            check_num_examples(update)
            parameters = await checked_parameters(update, self._context.strategy.uploaded, self._model.parameters)
        except UpdateRefused as refusal:
            self._reject(assignment.client_id, str(refusal))
            raise
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._raise_if_done()
        self._inbox.put_nowait(Delivery(assignment, update, parameters, taken))
        await taken

    def _raise_if_done(self) -> None:
        if self._machine.phase is machine.RoundPhase.DONE:
            raise UpdateRefused("The round was closed before the update arrived.")

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

    def _reject(self, client_id: str, reason: str) -> None:
        self._inbox.put_nowait(machine.ClientEnded(time.monotonic(), client_id, Outcome.REJECTED, reason))


def check_num_examples(update: Update) -> None:
    if not 1 <= update.num_examples <= limits.MAX_NUM_EXAMPLES:
        raise UpdateRefused(
            f"The update counts {update.num_examples:,} examples; between 1 and {limits.MAX_NUM_EXAMPLES:,} are allowed."
        )
