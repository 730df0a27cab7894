"""The model that a run begins with: one client's `get_parameters`, seeded by the run."""

from __future__ import annotations

import asyncio

from aggregator.context import RunContext, checked_parameters
from aggregator.core.strategies.base import UpdateRejected
from aggregator.hub import Assignment, Update, UpdateRefused
from protos.fedui.v1 import task_pb2
from protos.tensors import Parameters


class InitialisationFailed(Exception):
    """No client that was asked delivered a model to begin with; the text has each one's reason."""


class Initialisation:
    """Asks one client after another until one delivers."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._answer: asyncio.Future[Parameters] = asyncio.get_running_loop().create_future()
        self._limit: asyncio.Timeout | None = None

    async def first_of(self, clients: dict[str, str]) -> Parameters:
        """`clients`: name of each by its id. Those that are free are asked first, for the model is the same whoever makes it.

        Raises `InitialisationFailed`.
        """
        reasons = []
        busy = self._context.hub.at_work_for
        for client_id, name in sorted(clients.items(), key=lambda client: (bool(busy(client[0])), client)):
            try:
                return await self._ask(client_id)
            except InitialisationFailed as failure:
                reasons.append(f"{name}: {failure}")
        raise InitialisationFailed("No client could deliver the initial model. " + " ".join(reasons))

    async def _ask(self, client_id: str) -> Parameters:
        self._answer = asyncio.get_running_loop().create_future()
        assignment = self._context.assignment(
            self, client_id, task_pb2.TASK_KIND_INITIALISE, round_number=0, attempt=1, model=None, config={}
        )
        faults = self._context.spec.strategy.faults
        handed = self._context.hub.assign(assignment)
        try:
            async with asyncio.timeout(faults.deadline_seconds if handed else faults.wait_for_clients_seconds) as limit:
                self._limit = limit
                parameters = await self._answer
        except BaseException as error:
            self._context.hub.cancel(assignment, "The initial model is not needed any more.")
            if isinstance(error, TimeoutError):
                raise InitialisationFailed("The deadline passed.") from None
            raise
        self._context.hub.withdraw(assignment)
        return parameters

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None:
        """Of no interest."""

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None:
        """Of no interest."""

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None:
        self._fail(result.reason or "It sent no model.")

    def on_handed(self, assignment: Assignment) -> None:
        """It was busy in other runs; its time begins now."""
        if self._limit:
            deadline = self._context.spec.strategy.faults.deadline_seconds
            self._limit.reschedule(asyncio.get_running_loop().time() + deadline)

    def on_lost(self, assignment: Assignment) -> None:
        self._fail("The connection was lost.")

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        try:
            parameters = await checked_parameters(update, self._context.spec.signature)
            await asyncio.to_thread(self._check, parameters)
        except UpdateRefused as refusal:
            self._fail(str(refusal))
            raise
        if not self._answer.done():
            self._answer.set_result(parameters)

    def _check(self, parameters: Parameters) -> None:
        try:
            self._context.spec.strategy.aggregation.check_initial(parameters)
        except UpdateRejected as rejection:
            raise UpdateRefused(str(rejection)) from rejection
        except Exception as error:  # a rule may be anybody's code
            raise UpdateRefused(f"The strategy failed in check_initial: {type(error).__name__}: {error}") from error

    def _fail(self, reason: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(InitialisationFailed(reason))
