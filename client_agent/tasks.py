"""The tasks in hand: one at work or as many as the owner lets, the others waiting; each ends with a result in the outbox."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from client_agent import execution, log_context
from client_agent.errors import TaskRefused, TransferError, UpdateTooLate
from client_agent.execution import Given, Update
from client_agent.hosting import AppKey, HostedApp, HostedApps
from client_agent.memory import Memory, Outcome
from client_agent.method_state import MethodStates
from client_agent.outbox import Outbox
from client_agent.owner import Owner
from client_agent.progress import TaskProgress
from client_agent.sdk import NumPyClient, Silent
from client_agent.threads import ClientError, in_thread
from client_agent.transfer import Report, Transfer
from protos import limits, tensors
from protos.convert import Scalars, encoding_from_proto, packing_from_proto, scalars_from_proto, signature_from_proto
from protos.fedui.v1 import fleet_pb2, task_pb2
from protos.tensors import CodecError, Parameters, Signature

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_WAITING = 4 * limits.MAX_TASKS
"""Tasks; a server hands out no more than are worked on at once."""
GRACE_SECONDS = 5.0
"""How long a stopping agent waits for training to notice."""


@dataclass(slots=True, eq=False)
class _Job:
    """A task at work."""

    task: task_pb2.Task
    progress: TaskProgress
    work: asyncio.Task[task_pb2.TaskResult]
    end_early: asyncio.TimerHandle | None
    called_off: str = ""
    called_off_at: float = 0.0
    stood_down: bool = False

    def result(self) -> task_pb2.TaskResult:
        if not self.work.cancelled():
            return self.work.result()
        seconds = time.monotonic() - self.called_off_at
        late = f" The work ended {seconds:.0f} s later." if seconds >= 1 else ""
        return _cancelled(self.task.task_id, self.called_off + late)


class Tasks:
    """Takes tasks from the stream and works through them, whether or not the stream is there: as many at once as there are
    `transfers`, of which each has its own. An app's client does one thing at a time all the same.
    """

    def __init__(
        self,
        apps: HostedApps,
        transfers: Sequence[Transfer],
        outbox: Outbox,
        on_change: Callable[[task_pb2.Task | None], None],
        states: MethodStates,
        owner: Owner,
        memory: Memory,
    ) -> None:
        self._apps = apps
        self._transfers = transfers
        self._outbox = outbox
        self._on_change = on_change
        self._states = states
        self._owner = owner
        self._memory = memory
        self._waiting: dict[str, tuple[task_pb2.Task, float]] = {}
        """With the moment at which each came."""
        self._arrived = asyncio.Event()
        self._jobs: dict[str, _Job] = {}
        self._turns: defaultdict[AppKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    def in_hand(self) -> list[str]:
        """The ids of tasks whose results the server will get without asking again."""
        return [*self._jobs, *self._waiting, *self._outbox.unsent_results()]

    def server_is_back(self) -> None:
        """A transfer that waits for its next attempt need wait no longer."""
        for transfer in self._transfers:
            transfer.server_is_back()

    def accept(self, task: task_pb2.Task) -> None:
        """Take a task; one that is in hand already goes on undisturbed."""
        if task.task_id in self.in_hand():
            return
        reason = self._owner.unavailable()
        if not reason and len(self._waiting) >= MOST_WAITING:
            reason = f"{MOST_WAITING} tasks wait for this agent already."
        if reason:
            self._outbox.put_result(_failure(task.task_id, task_pb2.TASK_OUTCOME_REFUSED, reason))
            return
        self._waiting[task.task_id] = (task, time.monotonic())
        self._arrived.set()

    def settle(self, settled: fleet_pb2.Settled) -> None:
        """The server will not ask again for what is kept up to some round of a run."""
        through = None if settled.whole_run else settled.through_round
        asyncio.get_running_loop().run_in_executor(None, self._memory.settle, settled.run_id, through)

    def stand_down(self, reason: str) -> None:
        """The owner wants the machine back: refuse what waits, and end what is at work. Its result leaves at once, whenever
        the training ends."""
        refused = list(self._waiting)
        self._waiting.clear()
        for task_id, job in self._jobs.items():
            if not job.stood_down and job.work.cancel():
                job.stood_down = True
                refused.append(task_id)
        for task_id in refused:
            self._outbox.put_result(_failure(task_id, task_pb2.TASK_OUTCOME_REFUSED, reason))

    def cancel(self, task_id: str, reason: str, *, finish: bool = False) -> None:
        """`finish`: send what the training has come to, if it has begun."""
        if self._waiting.pop(task_id, None):
            self._outbox.put_result(_cancelled(task_id, reason))
        elif (job := self._jobs.get(task_id)) and finish:
            log.info("Task %s is to send what it has: %s", task_id, reason, extra=log_context.names_of(job.task))
            job.progress.end_early()
        elif job:
            log.info("Task %s cancelled by the server: %s", task_id, reason, extra=log_context.names_of(job.task))
            job.called_off, job.called_off_at = reason, time.monotonic()
            job.work.cancel()

    async def run(self) -> None:
        """Work until cancelled."""
        slots = [asyncio.create_task(self._work_through(transfer)) for transfer in self._transfers]
        try:
            await asyncio.gather(*slots)
        finally:
            for slot in slots:
                slot.cancel()
            await asyncio.wait(slots)

    async def _work_through(self, transfer: Transfer) -> None:
        while True:
            job = self._begin(*await self._next(), transfer)
            try:
                await asyncio.wait([job.work])
            except asyncio.CancelledError:
                job.work.cancel()
                await asyncio.wait([job.work], timeout=GRACE_SECONDS)
                raise
            finally:
                if job.end_early:
                    job.end_early.cancel()
            del self._jobs[job.task.task_id]
            if not job.stood_down:
                self._finish(job.task, job.result())
            self._on_change(next((other.task for other in self._jobs.values()), None))

    async def _next(self) -> tuple[task_pb2.Task, float]:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    def _begin(self, task: task_pb2.Task, came: float, transfer: Transfer) -> _Job:
        progress = TaskProgress(task.task_id, self._outbox.put_progress)
        end_early = None
        if task.finish_after_seconds:
            seconds = max(0.0, task.finish_after_seconds - (time.monotonic() - came))
            end_early = asyncio.get_running_loop().call_later(seconds, progress.end_early)
        self._on_change(task)
        work = asyncio.create_task(self._perform(task, progress, transfer), name=task.task_id)
        job = self._jobs[task.task_id] = _Job(task, progress, work, end_early)
        return job

    def _finish(self, task: task_pb2.Task, result: task_pb2.TaskResult) -> None:
        outcome = task_pb2.TaskOutcome.Name(result.outcome).removeprefix("TASK_OUTCOME_").lower()
        reason = f" ({result.reason})" if result.reason else ""
        log.info("Round %d, %s: %s%s", task.round, _kind(task), outcome, reason, extra=log_context.names_of(task))
        self._outbox.put_result(result)

    async def _perform(self, task: task_pb2.Task, progress: TaskProgress, transfer: Transfer) -> task_pb2.TaskResult:
        """Whatever goes wrong with one task is told to the server, and never ends the agent."""
        log_context.bind(**log_context.names_of(task))
        forwarding = asyncio.create_task(progress.forward())
        try:
            return await self._complete(task, progress, transfer)
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
            case UpdateTooLate():
                return _cancelled(task.task_id, str(error))
            case TransferError() | CodecError():
                return _failure(task.task_id, task_pb2.TASK_OUTCOME_FAILED, str(error))
        log.error("%sTask %s failed", prefix, task.task_id, exc_info=error)
        return _failure(task.task_id, task_pb2.TASK_OUTCOME_FAILED, prefix + self._owner.words_for(error))

    async def _complete(self, task: task_pb2.Task, progress: TaskProgress, transfer: Transfer) -> task_pb2.TaskResult:
        self._owner.check(task, self._apps.get((task.app, task.app_version)))
        if task.kind == task_pb2.TASK_KIND_QUERY:
            return await self._answer(task, progress)
        outcome = await asyncio.to_thread(self._recall, task)
        fresh = outcome is None
        if outcome is None:
            outcome = await self._work(task, self._app_for(task), progress, transfer)
            await asyncio.to_thread(self._memory.keep, task, outcome)
            # The disk need not be waited for: the update is sent meanwhile.
            asyncio.get_running_loop().run_in_executor(None, self._memory.flush, task)
        result = task_pb2.TaskResult(
            task_id=task.task_id,
            outcome=task_pb2.TASK_OUTCOME_COMPLETED,
            num_examples=outcome.num_examples,
            metrics=outcome.metrics,
        )
        if isinstance(outcome, Update):
            progress.enter(task_pb2.PHASE_UPLOADING)
            await transfer.upload(task.task_id, outcome, _fraction_to(progress), fresh=fresh)
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

    async def _work(
        self, task: task_pb2.Task, hosted: HostedApp, progress: TaskProgress, transfer: Transfer
    ) -> Outcome:
        config: Scalars = {"run_id": task.run_id, "round": task.round, **scalars_from_proto(task.config)}
        log.info("Round %d, %s: %s %s", task.round, _kind(task), task.app, task.app_version)
        match task.kind:
            case task_pb2.TASK_KIND_INITIALISE:
                return await self._run_client(hosted, progress, lambda: execution.initialise(hosted, config))
            case task_pb2.TASK_KIND_FIT:
                encoding, seed = encoding_from_proto(task.encoding), task.rounding_seed
                packing = packing_from_proto(task.encoding.packing) or "none"
                self._owner.begin_training()
                given = await self._given(task, hosted, progress, transfer)
                progress.enter(task_pb2.PHASE_TRAINING)
                trained = await self._run_client(
                    hosted, progress, lambda: execution.fit(hosted, given, config, encoding, seed, packing)
                )
                if trained.kept:
                    keep = self._states.save
                    await asyncio.to_thread(keep, task.run_id, task.round, task.counted_round, trained.kept)
                return replace(trained.update, steps=progress.steps)
            case task_pb2.TASK_KIND_EVALUATE:
                given = await self._given(task, hosted, progress, transfer)
                progress.enter(task_pb2.PHASE_EVALUATING)
                return await self._run_client(hosted, progress, lambda: execution.evaluate(hosted, given, config))
        raise TaskRefused(f"This agent doesn't know tasks of kind {task.kind}: update fedagent.")

    async def _given(self, task: task_pb2.Task, hosted: HostedApp, progress: TaskProgress, transfer: Transfer) -> Given:
        tensors_sent = await self._download(task, hosted, progress, transfer)
        auxiliary = {name: tensors_sent.pop(name) for name in list(tensors_sent) if name.startswith(tensors.AUXILIARY)}
        kept = await asyncio.to_thread(self._states.load, task.run_id, task.counted_round)
        return Given(tensors_sent, auxiliary, kept, tuple(task.local_tensors))

    async def _download(
        self, task: task_pb2.Task, hosted: HostedApp, progress: TaskProgress, transfer: Transfer
    ) -> Parameters:
        signature = signature_from_proto(task.model.signature)
        local = frozenset(task.local_tensors)
        expected = Signature(tuple(t for t in hosted.signature.tensors if t.name not in local))
        model = Signature(tuple(t for t in signature.tensors if not t.name.startswith(tensors.AUXILIARY)))
        if misfit := expected.misfit(model):
            raise TaskRefused(f"The run's model isn't that of this agent's {task.app} {task.app_version}: {misfit}.")
        if task.model.size != signature.size:
            raise TransferError(f"The server's model has {task.model.size:,} bytes, not {signature.size:,}.")
        progress.enter(task_pb2.PHASE_DOWNLOADING)
        content = await transfer.download(task.task_id, task.model, _fraction_to(progress))
        return tensors.decode(content, signature)

    async def _run_client(self, hosted: HostedApp, progress: TaskProgress, function: Callable[[], T]) -> T:
        """One at a time: a client keeps what it is doing in itself."""
        async with self._turns[hosted.app.name, hosted.app.version]:
            return await _with_client(hosted, progress, function)

    def _app_for(self, task: task_pb2.Task) -> HostedApp:
        if hosted := self._apps.get((task.app, task.app_version)):
            return hosted
        offered = ", ".join(f"{name} {version}" for name, version in self._apps)
        raise TaskRefused(f"This agent has no app {task.app} {task.app_version}; it offers {offered}.")


async def _with_client(hosted: HostedApp, progress: TaskProgress, function: Callable[[], T]) -> T:
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


def _cancelled(task_id: str, reason: str) -> task_pb2.TaskResult:
    return _failure(task_id, task_pb2.TASK_OUTCOME_CANCELLED, reason or "Cancelled by the server.")


def _failure(task_id: str, outcome: task_pb2.TaskOutcome.ValueType, reason: str) -> task_pb2.TaskResult:
    return task_pb2.TaskResult(task_id=task_id, outcome=outcome, reason=reason[: limits.MAX_REASON_LENGTH])
