"""Drives one query from its beginning to its end: a few passes over the clients that offer the column."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aggregator.core.analytics import Answer, Ask, BadAnswer, NoResult, Passes, Result, check, passes
from aggregator.hub import Assignment, Hub, Update, UpdateRefused
from aggregator.ports import ClientIdentity, LeaseLost, QueryLease, QueryOutcome, QuerySpec, QueryStore
from protos.fedui.v1 import task_pb2

logger = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
"""How often the lease is renewed, which is also when a cancelled query is noticed; a nudge makes it sooner."""
SHOWN_REASONS = 50
MAX_REASON = 300
UNSTORED = "The result could not be stored. The worker's log says why."


class QueryFailed(Exception):
    """The query can't go on; the text is for the operator."""


class QueryDriver:
    def __init__(self, spec: QuerySpec, lease: QueryLease, hub: Hub, store: QueryStore) -> None:
        self._spec, self._lease, self._hub, self._store = spec, lease, hub, store
        self._lease_lost = False
        self._nudged = asyncio.Event()
        self._left_out: dict[str, str] = {}

    async def drive(self) -> None:
        """Returns when the query has ended, was cancelled, or is another engine's. If cancelled, the query is given back."""
        main = asyncio.current_task()
        assert main is not None  # a coroutine runs in a task
        keeper = asyncio.create_task(self._keep_lease(main), name=f"lease of query {self._spec.query_id}")
        try:
            await self._drive_to_an_end()
        except LeaseLost:
            logger.info("The query was cancelled or taken over", extra={"query_id": self._spec.query_id})
        except asyncio.CancelledError:
            if not self._lease_lost:  # the engine is shutting down
                await self._store.release(self._lease)
                raise
            main.uncancel()
        finally:
            keeper.cancel()

    def nudge(self) -> None:
        """The operator may have cancelled the query: look now."""
        self._nudged.set()

    async def _keep_lease(self, main: asyncio.Task[object]) -> None:
        while True:
            try:
                await self._store.renew(self._lease)
            except LeaseLost:
                self._lease_lost = True
                main.cancel()
                return
            except Exception:
                # Fencing protects the query if the lease expires meanwhile.
                logger.exception("The lease could not be renewed", extra={"query_id": self._spec.query_id})
            try:
                await asyncio.wait_for(self._nudged.wait(), RENEW_SECONDS)
                self._nudged.clear()
            except TimeoutError:
                pass

    async def _drive_to_an_end(self) -> None:
        try:
            outcome, reason, result = QueryOutcome.COMPLETED, "", await self._result()
        except (QueryFailed, NoResult) as failure:
            outcome, reason, result = QueryOutcome.FAILED, str(failure), None
        except Exception as error:
            logger.exception("The query has failed", extra={"query_id": self._spec.query_id})
            outcome, reason, result = QueryOutcome.FAILED, f"The engine failed: {type(error).__name__}: {error}", None
        await self._finish(outcome, reason, result)

    async def _finish(self, outcome: QueryOutcome, reason: str, result: dict[str, Any] | None) -> None:
        """A result that can't be stored would not be the second time: without an end the query would be asked again for ever."""
        try:
            await self._store.finish(self._lease, outcome, reason, result)
        except LeaseLost:
            raise
        except Exception:
            logger.exception("The query's end could not be stored", extra={"query_id": self._spec.query_id})
            await self._store.finish(self._lease, QueryOutcome.FAILED, UNSTORED, None)

    async def _result(self) -> dict[str, Any]:
        """The aggregate with how many clients it tells of, and who was left out. Raises `QueryFailed`, `NoResult`."""
        clients = {client_id: client.name for client_id, client in (await self._wait_for_clients()).items()}
        plan, number, told = passes(self._spec.config), 1, 0
        ask = next(plan)
        while True:
            answers = await Pass(self._spec, self._lease, self._hub, number, ask).answers_of(clients, self._left_out)
            if len(answers) < self._spec.config.min_clients:
                raise QueryFailed(self._too_few(len(answers)))
            clients = {client_id: clients[client_id] for client_id in answers}
            told = told or len(clients)  # of the first pass, like the result's number of values
            following = _advance(plan, answers)
            if isinstance(following, Result):
                return following.to_json() | {
                    "clients": told,
                    "passes": number,
                    "left_out": [
                        {"client": name, "reason": reason[:MAX_REASON]}
                        for name, reason in sorted(self._left_out.items())[:SHOWN_REASONS]
                    ],
                }
            ask, number = following, number + 1

    def _too_few(self, answered: int) -> str:
        reasons = " ".join(f"{name}: {reason[:MAX_REASON]}" for name, reason in sorted(self._left_out.items())[:5])
        return f"{answered} clients answered; {self._spec.config.min_clients} are needed. {reasons}".strip()

    async def _wait_for_clients(self) -> dict[str, ClientIdentity]:
        """All eligible clients, once there are enough, and those of a restarted server have had time to come back."""
        config = self._spec.config
        give_up_at = time.monotonic() + config.deadline_seconds
        while True:
            changed, now = self._hub.changed, time.monotonic()
            clients = self._eligible()
            enough = len(clients) >= config.min_clients
            if enough and now >= min(self._hub.complete_at, give_up_at):
                return clients
            try:
                async with asyncio.timeout((min(self._hub.complete_at, give_up_at) if enough else give_up_at) - now):
                    await changed.wait()
            except TimeoutError:
                if not enough:
                    raise QueryFailed(
                        f"{len(clients)} of {config.min_clients} clients with column {config.column!r} of {self._spec.app} "
                        f"{self._spec.app_version} were online within {config.deadline_seconds:g} s."
                    ) from None

    def _eligible(self) -> dict[str, ClientIdentity]:
        spec, wanted = self._spec, self._spec.config.labels.items()
        found = self._hub.offering(spec.federation_id, spec.app, spec.app_version, spec.config.column)
        return {client_id: client for client_id, client in found.items() if wanted <= client.labels.items()}


def _advance(plan: Passes, answers: Mapping[str, Answer]) -> Ask | Result:
    try:
        return plan.send([answers[client_id] for client_id in sorted(answers)])
    except StopIteration as end:
        result: Result = end.value
        return result


class Pass:
    """Asks every client once, and waits for all of them or for the deadline."""

    def __init__(self, spec: QuerySpec, lease: QueryLease, hub: Hub, number: int, ask: Ask) -> None:
        self._spec, self._lease, self._hub, self._number, self._ask = spec, lease, hub, number, ask
        self._answers: dict[str, Answer] = {}
        self._reasons: dict[str, str] = {}
        self._open: dict[str, Assignment] = {}
        self._all_said = asyncio.Event()

    async def answers_of(self, clients: Mapping[str, str], left_out: dict[str, str]) -> dict[str, Answer]:
        """The good answers by client. Why a client has none goes to `left_out`, by its name. `clients`: name by id."""
        for client_id in clients:
            self._open[client_id] = self._assignment(client_id)
        try:
            for assignment in list(self._open.values()):
                self._hub.assign(assignment)
            async with asyncio.timeout(self._spec.config.deadline_seconds):
                await self._all_said.wait()
        except TimeoutError:
            for client_id, assignment in self._open.items():
                busy = self._hub.waits(assignment)
                self._reasons[client_id] = (
                    "It was busy in a run until the deadline." if busy else "The deadline has passed."
                )
        finally:
            for assignment in self._open.values():
                self._hub.cancel(assignment, "The query no longer waits for this answer.")
            self._open.clear()
        left_out.update({clients[client_id]: reason for client_id, reason in self._reasons.items()})
        return self._answers

    def _assignment(self, client_id: str) -> Assignment:
        """The task's id is a function of what it is, so that sending it twice changes nothing."""
        spec, config = self._spec, self._spec.config
        name = f"query|{spec.query_id}|{self._lease.fencing}|{self._number}|{client_id}"
        task = task_pb2.Task(
            task_id=hashlib.sha256(name.encode()).hexdigest()[:32],
            run_id=f"query-{spec.query_id}",
            round=self._number,
            attempt=1,
            kind=task_pb2.TASK_KIND_QUERY,
            app=spec.app,
            app_version=spec.app_version,
            deadline_seconds=config.deadline_seconds,
            query=task_pb2.ColumnQuery(
                column=config.column, moments=self._ask.moments, extremes=self._ask.extremes, edges=self._ask.edges
            ),
        )
        return Assignment(client_id, task, self, federation_id=spec.federation_id)

    def on_phase(self, assignment: Assignment, phase: task_pb2.Phase.ValueType) -> None:
        """Of no interest."""

    def on_progress(self, assignment: Assignment, progress: task_pb2.Progress) -> None:
        """Of no interest."""

    def on_result(self, assignment: Assignment, result: task_pb2.TaskResult) -> None:
        if result.outcome != task_pb2.TASK_OUTCOME_COMPLETED:
            self._close(assignment, result.reason or "It gave no answer.")
            return
        answer = _answer(self._ask, result.answer)
        try:
            check(self._ask, answer)
        except BadAnswer as error:
            self._close(assignment, f"Its answer was refused. {error}")
            return
        if assignment.client_id in self._open:
            self._answers[assignment.client_id] = answer
        self._close(assignment)

    def on_handed(self, assignment: Assignment) -> None:
        """Of no interest: the pass's deadline goes on while clients work for others."""

    def on_lost(self, assignment: Assignment) -> None:
        self._close(assignment, "The connection was lost.")

    async def on_update(self, assignment: Assignment, update: Update) -> None:
        raise UpdateRefused("A query takes no upload.")

    def _close(self, assignment: Assignment, reason: str = "") -> None:
        if self._open.pop(assignment.client_id, None) and reason:
            self._reasons[assignment.client_id] = reason
        if not self._open:
            self._all_said.set()


def _answer(ask: Ask, message: task_pb2.ColumnAnswer) -> Answer:
    """What was asked for, and nothing else that is said."""
    answer = Answer(message.count)
    if ask.moments:
        answer = replace(answer, sum=message.sum, squared_deviations=message.squared_deviations)
    if ask.extremes:
        answer = replace(answer, low=message.low, high=message.high)
    return replace(answer, counts=tuple(message.counts)) if ask.edges else answer
