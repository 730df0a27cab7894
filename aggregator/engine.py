"""The engine: one gRPC server, and the runs and queries that it drives, on one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from aggregator.barring import Barring
from aggregator.context import RunContext
from aggregator.core.strategy import Strategy
from aggregator.events import EventLog
from aggregator.hub import Hub
from aggregator.ports import ClientRegistry, Evaluator, EventSink, ModelStore, QueryStore, RunOutcome, RunStore
from aggregator.query_driver import QueryDriver
from aggregator.run_driver import RunDriver
from aggregator.transport.calls import OpenCalls
from aggregator.transport.connections import ConnectionLimits
from aggregator.transport.pace import TransferLimits
from aggregator.transport.server import TLSMaterial, TLSSource, build_server
from aggregator.transport.uploads import upload_folder

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
LOST_AFTER_SECONDS = 30.0
GRACE_SECONDS = 2.0


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
    ) -> None:
        """`uploads` keeps what has arrived of an update for an engine that comes after this one; without it, nothing does."""
        self._owner = owner
        self._bind = bind
        self._tls: TLSSource = (lambda: tls) if isinstance(tls, TLSMaterial) else tls
        self._registry, self._store, self._models, self._events = registry, store, models, events
        self._find_evaluator = find_evaluator
        self._queries = queries
        self._hub = Hub(registry, heartbeat_seconds=heartbeat_seconds, lost_after_seconds=lost_after_seconds)
        self._calls = OpenCalls(connection_limits)
        self._barring = Barring(registry, self._hub, self._calls)
        self._drivers: dict[int, tuple[RunDriver, asyncio.Task[None]]] = {}
        self._query_drivers: dict[int, tuple[QueryDriver, asyncio.Task[None]]] = {}
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
        tasks = [task for _, task in (*self._drivers.values(), *self._query_drivers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def run(self, run_id: int) -> bool:
        """Drive a run to its end. False if there was nothing to do: it has ended, or another engine drives it."""
        if self._draining or run_id in self._drivers:
            return False
        state = await self._store.take_up(run_id, self._owner)
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
        )
        driver = RunDriver(context, state)
        task = asyncio.create_task(driver.drive(), name=f"run {run_id}")
        self._drivers[run_id] = driver, task
        try:
            await asyncio.wait([task])
        finally:
            del self._drivers[run_id]
        return not task.cancelled() and task.exception() is None

    async def query(self, query_id: int) -> bool:
        """Drive a query to its end. False if there was nothing to do, as with `run`."""
        if self._queries is None or self._draining or query_id in self._query_drivers:
            return False
        taken = await self._queries.take_up(query_id, self._owner)
        if taken is None:
            return False
        driver = QueryDriver(*taken, self._hub, self._queries)
        task = asyncio.create_task(driver.drive(), name=f"query {query_id}")
        self._query_drivers[query_id] = driver, task
        try:
            await asyncio.wait([task])
        finally:
            del self._query_drivers[query_id]
        return not task.cancelled() and task.exception() is None

    def nudge_query(self, query_id: int) -> None:
        """The operator has cancelled a query."""
        if query_id in self._query_drivers:
            self._query_drivers[query_id][0].nudge()

    def nudge(self, run_id: int) -> None:
        """The operator has changed what they want of a run."""
        if run_id in self._drivers:
            self._drivers[run_id][0].nudge()

    def look_who_is_barred(self) -> None:
        """An operator has suspended or revoked a client."""
        self._barring.look_now()
