"""The engine: one gRPC server, and the runs and queries that it drives, on one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from aggregator import log_context
from aggregator.barring import Barring
from aggregator.context import RunContext
from aggregator.core.history import History
from aggregator.core.strategy import Strategy
from aggregator.events import EventLog
from aggregator.hub import Hub
from aggregator.ports import ClientRegistry, Evaluator, EventSink, ModelStore, QueryStore, RunOutcome, RunStore
from aggregator.query_driver import QueryDriver
from aggregator.run_driver import RunDriver
from aggregator.transport.calls import CallObserver, OpenCalls
from aggregator.transport.connections import ConnectionLimits
from aggregator.transport.pace import TransferLimits
from aggregator.transport.server import TLSMaterial, TLSSource, build_server
from aggregator.transport.uploads import upload_folder

D = TypeVar("D")
T = TypeVar("T")

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
LOST_AFTER_SECONDS = 30.0
GRACE_SECONDS = 2.0


@dataclass(slots=True)
class InHand(Generic[D]):
    """A run or a query, from the moment at which the engine reaches for its lease."""

    driver: D | None = None
    """Once the lease is there."""
    task: asyncio.Task[bool] | None = None


async def _taken(taking: Coroutine[Any, Any, T | None], release: Callable[[T], Coroutine[Any, Any, None]]) -> T | None:
    """What `taking` returns. When cancelled meanwhile, the lease that it may bring all the same is given back."""
    task = asyncio.ensure_future(taking)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if (taken := await task) is not None:
            await release(taken)
        raise


class Engine:
    """`start`, then `run` as many runs as there are, then `stop`. All on the loop that it was started on."""

    def __init__(
        self,
        *,
        owner: str,
        bind: str,
        tls: TLSMaterial | TLSSource,
        registry: ClientRegistry,
        store: RunStore,
        models: ModelStore,
        events: EventSink,
        find_evaluator: Callable[[str], Evaluator | None],
        queries: QueryStore | None = None,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        lost_after_seconds: float = LOST_AFTER_SECONDS,
        uploads: Path | None = None,
        transfer_limits: TransferLimits | None = None,
        connection_limits: ConnectionLimits | None = None,
        observe_call: CallObserver | None = None,
    ) -> None:
        """`uploads` keeps what has arrived of an update for an engine that comes after this one; without it, nothing does."""
        self._owner = owner
        self._bind = bind
        self._tls: TLSSource = (lambda: tls) if isinstance(tls, TLSMaterial) else tls
        self._registry, self._store, self._models, self._events = registry, store, models, events
        self._find_evaluator = find_evaluator
        self._queries = queries
        self._hub = Hub(
            registry,
            heartbeat_seconds=heartbeat_seconds,
            lost_after_seconds=lost_after_seconds,
            find_settled=store.settled,
        )
        self._calls = OpenCalls(connection_limits, observe_call)
        self._barring = Barring(registry, self._hub, self._calls)
        self._runs: dict[int, InHand[RunDriver]] = {}
        self._queries_in_hand: dict[int, InHand[QueryDriver]] = {}
        self._upload_parent, self._transfer_limits = uploads, transfer_limits or TransferLimits()
        self._resources = ExitStack()
        self._draining = False
        self.port = 0

    async def start(self) -> None:
        """Raises `PortTaken`."""
        with ExitStack() as resources:
            folder = resources.enter_context(upload_folder(self._upload_parent))
            self._server, self.port = build_server(
                self._hub, self._registry, self._calls, self._tls, self._bind, folder, self._transfer_limits
            )
            self._resources = resources.pop_all()
        await self._server.start()
        self._watches = [
            asyncio.create_task(self._hub.watch(), name="hub watch"),
            asyncio.create_task(self._barring.run(), name="barring"),
        ]
        logger.info("gRPC listens", extra={"address": self._bind, "port": self.port})

    def announce(self, addresses: Sequence[str]) -> None:
        """Where agents may find a server when this one has gone, as host:port."""
        self._hub.announce(tuple(addresses))

    async def stop(self) -> None:
        """Give unfinished runs back, tell agents to come again, and close."""
        await self.drain()
        for watch in self._watches:
            watch.cancel()
        self._hub.end_all("The server is restarting.", self._calls.limits.reconnects_per_second)
        await self._server.stop(GRACE_SECONDS)
        self._resources.close()

    async def drain(self) -> None:
        """Take up no more runs, and give those in hand back."""
        self._draining = True
        tasks = [one.task for one in self._runs.values() if one.task]
        tasks += [one.task for one in self._queries_in_hand.values() if one.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self, run_id: int) -> bool:
        """Drive a run to its end. False if it isn't driven to one: it has ended, another engine drives it, or this one failed."""
        return await self._drive("Run", self._runs, run_id, self._drive_run)

    async def query(self, query_id: int) -> bool:
        """Drive a query to its end. False if there was nothing to do, as with `run`."""
        return await self._drive("Query", self._queries_in_hand, query_id, self._drive_query)

    async def _drive(
        self,
        kind: str,
        in_hand: dict[int, InHand[D]],
        key: int,
        drive: Callable[[int, InHand[D]], Coroutine[Any, Any, bool]],
    ) -> bool:
        """It counts as in hand before it is: a drain that comes meanwhile must find what it has to give back."""
        if self._draining or key in in_hand:
            return False
        one = in_hand[key] = InHand()
        one.task = asyncio.create_task(drive(key, one), name=f"{kind} {key}")
        try:
            await asyncio.wait([one.task])
        finally:
            del in_hand[key]
        if one.task.cancelled():
            return False
        if error := one.task.exception():
            logger.error(
                "%s broke off; its lease runs out, and it is taken up again", one.task.get_name(), exc_info=error
            )
            return False
        return one.task.result()

    async def _drive_run(self, run_id: int, one: InHand[RunDriver]) -> bool:
        log_context.bind(run_id=run_id)
        state = await _taken(self._store.take_up(run_id, self._owner), lambda taken: self._store.release(taken.lease))
        if state is None:
            return False
        try:
            strategy = Strategy(state.spec.strategy, state.spec.signature)
        except Exception as error:  # a method may be anybody's code
            logger.warning("The strategy can't be built", exc_info=True, extra={"run_id": run_id})
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            await self._store.finish(state.lease, RunOutcome.FAILED, f"The strategy doesn't fit the app: {reason}")
            return True
        context = RunContext(
            spec=state.spec,
            lease=state.lease,
            strategy=strategy,
            hub=self._hub,
            store=self._store,
            models=self._models,
            events=EventLog(state.lease, state.last_event, self._events),
            evaluator=self._find_evaluator(state.spec.app),
            history=History(state.paces),
        )
        one.driver = RunDriver(context, state)
        await one.driver.drive()
        return True

    async def _drive_query(self, query_id: int, one: InHand[QueryDriver]) -> bool:
        log_context.bind(query_id=query_id)
        if (store := self._queries) is None:
            return False
        taken = await _taken(store.take_up(query_id, self._owner), lambda taken: store.release(taken[1]))
        if taken is None:
            return False
        one.driver = QueryDriver(*taken, self._hub, store)
        await one.driver.drive()
        return True

    def nudge_query(self, query_id: int) -> None:
        """The operator has cancelled a query."""
        if (one := self._queries_in_hand.get(query_id)) and one.driver:
            one.driver.nudge()

    def nudge(self, run_id: int) -> None:
        """The operator has changed what they want of a run."""
        if (one := self._runs.get(run_id)) and one.driver:
            one.driver.nudge()

    def look_who_is_barred(self) -> None:
        """An operator has suspended or revoked a client."""
        self._barring.look_now()
