"""The tasks in hand: one at work, the others waiting; each ends with a result in the outbox."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from client_agent import execution
from client_agent.errors import TaskRefused, TransferError
from client_agent.execution import Given, Update
from client_agent.hosting import HostedApp, HostedApps
from client_agent.memory import Memory, Outcome
from client_agent.method_state import MethodStates
from client_agent.outbox import Outbox
from client_agent.owner import Owner
from client_agent.progress import TaskProgress
from client_agent.sdk import NumPyClient, Silent
from client_agent.threads import ClientError, in_thread
from client_agent.transfer import Report, Transfer
from protos import limits, tensors
from protos.convert import Scalars, encoding_from_proto, scalars_from_proto, signature_from_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import CodecError, Parameters, Signature

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_SECONDS = 5.0
"""How long a stopping agent waits for training to notice."""


class Tasks:
    """Takes tasks from the stream and works through them, whether or not the stream is there."""

    def __init__(
        self,
        apps: HostedApps,
        transfer: Transfer,
        outbox: Outbox,
        on_change: Callable[[task_pb2.Task | None], None],
        states: MethodStates,
        owner: Owner,
        memory: Memory,
    ) -> None:
        self._apps = apps
        self._transfer = transfer
        self._outbox = outbox
        self._on_change = on_change
        self._states = states
        self._owner = owner
        self._memory = memory
        self._waiting: dict[str, task_pb2.Task] = {}
        self._arrived = asyncio.Event()
        self._current: asyncio.Task[task_pb2.TaskResult] | None = None
        self._stood_down = False

    def in_hand(self) -> list[str]:
        """The ids of tasks whose results the server will get without asking again."""
        current = [self._current.get_name()] if self._current else []
        return [*current, *self._waiting, *self._outbox.unsent_results()]

    def server_is_back(self) -> None:
        """A transfer that waits for its next attempt need wait no longer."""
        self._transfer.retry_now()

    def accept(self, task: task_pb2.Task) -> None:
        """Take a task; one that is in hand already goes on undisturbed."""
        if task.task_id in self.in_hand():
            return
        if reason := self._owner.unavailable():
            self._outbox.put_result(_failure(task.task_id, task_pb2.TASK_OUTCOME_REFUSED, reason))
            return
        self._waiting[task.task_id] = task
        self._arrived.set()

    def stand_down(self, reason: str) -> None:
        """The owner wants the machine back: refuse what waits, and end what is at work. Its result leaves at once, whenever
        the training ends."""
        refused = list(self._waiting)
        self._waiting.clear()
        if self._current and not self._stood_down and self._current.cancel():
            refused.append(self._current.get_name())
            self._stood_down = True
        for task_id in refused:
            self._outbox.put_result(_failure(task_id, task_pb2.TASK_OUTCOME_REFUSED, reason))

    def cancel(self, task_id: str, reason: str) -> None:
        if self._waiting.pop(task_id, None):
            self._outbox.put_result(_cancelled(task_id))
        elif self._current and self._current.get_name() == task_id:
            log.info("Task %s cancelled by the server: %s", task_id, reason)
            self._current.cancel()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            task = await self._next()
            self._on_change(task)
            self._current = asyncio.create_task(self._perform(task), name=task.task_id)
            try:
                await asyncio.wait([self._current])
            except asyncio.CancelledError:
                self._current.cancel()
                await asyncio.wait([self._current], timeout=GRACE_SECONDS)
                raise
            result = _cancelled(task.task_id) if self._current.cancelled() else self._current.result()
            if not self._stood_down:
                self._finish(task, result)
            self._current, self._stood_down = None, False
            self._on_change(None)

    async def _next(self) -> task_pb2.Task:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    def _finish(self, task: task_pb2.Task, result: task_pb2.TaskResult) -> None:
        outcome = task_pb2.TaskOutcome.Name(result.outcome).removeprefix("TASK_OUTCOME_").lower()
        log.info("Round %d, %s: %s%s", task.round, _kind(task), outcome, f" ({result.reason})" if result.reason else "")
        self._outbox.put_result(result)

    async def _perform(self, task: task_pb2.Task) -> task_pb2.TaskResult:
        """Whatever goes wrong with one task is told to the server, and never ends the agent."""
        progress = TaskProgress(task.task_id, self._outbox.put_progress)
        forwarding = asyncio.create_task(progress.forward())
        try:
            return await self._complete(task, progress)
        except ClientError as error:
            return self._unsuccessful(task, error.cause)
        except Exception as error:
            return self._unsuccessful(task, error, "The agent failed: ")
        finally:
            forwarding.cancel()
            progress.flush()

    def _unsuccessful(self, task: task_pb2.Task, error: BaseException, prefix: str = "") -> task_pb2.TaskResult:
        error = self._owner.refusal_behind(error) or error
        match error:
            case TaskRefused():
                return _failure(task.task_id, task_pb2.TASK_OUTCOME_REFUSED, str(error))
            case TransferError() | CodecError():
                return _failure(task.task_id, task_pb2.TASK_OUTCOME_FAILED, str(error))
        log.error("%sTask %s failed", prefix, task.task_id, exc_info=error)
        return _failure(task.task_id, task_pb2.TASK_OUTCOME_FAILED, prefix + self._owner.words_for(error))

    async def _complete(self, task: task_pb2.Task, progress: TaskProgress) -> task_pb2.TaskResult:
        self._owner.check(task, self._apps.get((task.app, task.app_version)))
        if task.kind == task_pb2.TASK_KIND_QUERY:
            return await self._answer(task, progress)
        outcome = await asyncio.to_thread(self._recall, task)
        if outcome is None:
            outcome = await self._work(task, self._app_for(task), progress)
            await asyncio.to_thread(self._memory.keep, task, outcome)
        result = task_pb2.TaskResult(
            task_id=task.task_id,
            outcome=task_pb2.TASK_OUTCOME_COMPLETED,
            num_examples=outcome.num_examples,
            metrics=outcome.metrics,
        )
        if isinstance(outcome, Update):
            progress.enter(task_pb2.PHASE_UPLOADING)
            await self._transfer.upload(task.task_id, outcome, _fraction_to(progress))
        else:
            result.loss = outcome.loss
        return result

    def _recall(self, task: task_pb2.Task) -> Outcome | None:
        self._memory.acknowledge(task)
        return self._memory.recall(task)

    async def _answer(self, task: task_pb2.Task, progress: TaskProgress) -> task_pb2.TaskResult:
        """Queries are answered anew each time: the data may have changed, and there is no work to save."""
        columns = self._app_for(task).columns
        log.info("Query of column %r of %s %s", task.query.column, task.app, task.app_version)
        answer = await in_thread(lambda: columns.answer(task.query), stop=progress.cancel)
        return task_pb2.TaskResult(task_id=task.task_id, outcome=task_pb2.TASK_OUTCOME_COMPLETED, answer=answer)

    async def _work(self, task: task_pb2.Task, hosted: HostedApp, progress: TaskProgress) -> Outcome:
        config: Scalars = {"run_id": task.run_id, "round": task.round, **scalars_from_proto(task.config)}
        log.info("Round %d, %s: %s %s", task.round, _kind(task), task.app, task.app_version)
        match task.kind:
            case task_pb2.TASK_KIND_INITIALISE:
                return await _run_client(hosted, progress, lambda: execution.initialise(hosted, config))
            case task_pb2.TASK_KIND_FIT:
                encoding, seed = encoding_from_proto(task.encoding), task.rounding_seed
                self._owner.begin_training()
                given = await self._given(task, hosted, progress)
                progress.enter(task_pb2.PHASE_TRAINING)
                trained = await _run_client(
                    hosted, progress, lambda: execution.fit(hosted, given, config, encoding, seed)
                )
                if trained.kept:
                    keep = self._states.save
                    await asyncio.to_thread(keep, task.run_id, task.round, task.counted_round, trained.kept)
                return trained.update
            case task_pb2.TASK_KIND_EVALUATE:
                given = await self._given(task, hosted, progress)
                progress.enter(task_pb2.PHASE_EVALUATING)
                return await _run_client(hosted, progress, lambda: execution.evaluate(hosted, given, config))
        raise TaskRefused(f"This agent doesn't know tasks of kind {task.kind}: update fedagent.")

    async def _given(self, task: task_pb2.Task, hosted: HostedApp, progress: TaskProgress) -> Given:
        tensors_sent = await self._download(task, hosted, progress)
        auxiliary = {name: tensors_sent.pop(name) for name in list(tensors_sent) if name.startswith(tensors.AUXILIARY)}
        kept = await asyncio.to_thread(self._states.load, task.run_id, task.counted_round)
        return Given(tensors_sent, auxiliary, kept, tuple(task.local_tensors))

    async def _download(self, task: task_pb2.Task, hosted: HostedApp, progress: TaskProgress) -> Parameters:
        signature = signature_from_proto(task.model.signature)
        local = frozenset(task.local_tensors)
        expected = Signature(tuple(t for t in hosted.signature.tensors if t.name not in local))
        model = Signature(tuple(t for t in signature.tensors if not t.name.startswith(tensors.AUXILIARY)))
        if misfit := expected.misfit(model):
            raise TaskRefused(f"The run's model isn't that of this agent's {task.app} {task.app_version}: {misfit}.")
        if task.model.size != signature.size:
            raise TransferError(f"The server's model has {task.model.size:,} bytes, not {signature.size:,}.")
        progress.enter(task_pb2.PHASE_DOWNLOADING)
        content = await self._transfer.download(task.task_id, task.model, _fraction_to(progress))
        return tensors.decode(content, signature)

    def _app_for(self, task: task_pb2.Task) -> HostedApp:
        if hosted := self._apps.get((task.app, task.app_version)):
            return hosted
        offered = ", ".join(f"{name} {version}" for name, version in self._apps)
        raise TaskRefused(f"This agent has no app {task.app} {task.app_version}; it offers {offered}.")


async def _run_client(hosted: HostedApp, progress: TaskProgress, function: Callable[[], T]) -> T:
    if not isinstance(hosted.client, NumPyClient):
        return await in_thread(function, stop=progress.cancel)
    hosted.client.send_progress_to(progress)
    try:
        return await in_thread(function, stop=progress.cancel)
    finally:
        hosted.client.send_progress_to(Silent())


def _fraction_to(progress: TaskProgress) -> Report:
    return lambda fraction: progress.report(fraction, {})


def _kind(task: task_pb2.Task) -> str:
    return task_pb2.TaskKind.Name(task.kind).removeprefix("TASK_KIND_").lower()


def _cancelled(task_id: str) -> task_pb2.TaskResult:
    return task_pb2.TaskResult(
        task_id=task_id, outcome=task_pb2.TASK_OUTCOME_CANCELLED, reason="Cancelled by the server."
    )


def _failure(task_id: str, outcome: task_pb2.TaskOutcome.ValueType, reason: str) -> task_pb2.TaskResult:
    return task_pb2.TaskResult(task_id=task_id, outcome=outcome, reason=reason[: limits.MAX_REASON_LENGTH])
