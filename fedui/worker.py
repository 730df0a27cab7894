"""Hosts the aggregation engine in a Celery worker: one event loop in a thread of its own, shared by all runs of the process.

The worker uses Celery's threads pool: each run's task waits in a thread while the loop does the work, so that one gRPC server on one port
serves all runs. Of several workers one serves, and has an engine; the others stand by (`fedui.workers.post`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, cast

from celery.exceptions import WorkerShutdown
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from aggregator.checkpoints import CheckpointStore
from aggregator.engine import Engine
from aggregator.ports import Evaluator
from aggregator.transport.server import PortTaken
from fedui.analytics.adapters import DatabaseQueryStore
from fedui.analytics.models import Query
from fedui.clients.registry import DatabaseClientRegistry
from fedui.clients.server_tls import ServerTLS
from fedui.metrics.counted import RUNS_DRIVEN
from fedui.metrics.engine import call_ended
from fedui.runs import live, queue
from fedui.runs.adapters import DatabaseEventSink, DatabaseRunStore
from fedui.runs.store import model_files
from fedui.workers import post
from fedui.workers.post import Me

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

T = TypeVar("T")

logger = logging.getLogger(__name__)

CONTROL_RETRY_SECONDS = 2.0
LOOK_SECONDS = 1.5
"""How often a worker looks who serves, and the one that serves for what nobody drives."""
CUT_OFF_SECONDS = 60.0
"""A worker that can't reach the database for so long leaves its agents to another, where there is one."""
EXIT_PORT_TAKEN = 3
EXIT_CUT_OFF = 4


def find_evaluator(app: str) -> Evaluator | None:
    """The evaluator that an installed package registers for the app (entry point group `fedui.evaluators`), if any."""
    for entry_point in entry_points(group="fedui.evaluators", name=app):
        try:
            return cast(Evaluator, entry_point.load())
        except ImportError:
            logger.exception("The evaluator of app %s can't be loaded", app)
    return None


def build_engine(me: Me | None = None) -> Engine:
    """The engine over the database."""
    me = me or Me(bind=settings.GRPC_BIND, address=settings.GRPC_ADDRESS)
    return Engine(
        owner=me.owner,
        bind=me.bind,
        tls=ServerTLS(settings.GRPC_HOSTS),
        registry=DatabaseClientRegistry(),
        store=DatabaseRunStore(),
        models=CheckpointStore(model_files()),
        events=DatabaseEventSink(),
        find_evaluator=find_evaluator,
        queries=DatabaseQueryStore(),
        uploads=Path(settings.UPLOAD_DIR),
        transfer_limits=settings.TRANSFER_LIMITS,
        observe_call=call_ended,
    )


class EngineHost:
    """Threads of the worker call this; the engine lives on the loop's thread, while this worker serves."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._me = Me(bind=settings.GRPC_BIND, address=settings.GRPC_ADDRESS)
        self._engine: Engine | None = None
        self._hosts = False
        self._work: list[Future[None]] = []
        self._driven: set[asyncio.Task[bool]] = set()
        self._look_now = asyncio.Event()
        self._others = False
        """Whether another worker could serve, when the database was last there."""

    def start(self) -> None:
        """Ends the worker with one clear line if it is to serve and the port is taken."""
        _allow_many_connections()
        threading.Thread(target=self._loop.run_forever, name="engine", daemon=True).start()
        try:
            self._wait_for(self._appear())
        except PortTaken as error:
            logger.error("%s", error)
            raise WorkerShutdown(EXIT_PORT_TAKEN) from error
        self._hosts = True
        self._work = [asyncio.run_coroutine_threadsafe(one, self._loop) for one in (self._listen(), self._watch())]

    def run(self, run_id: int) -> bool:
        """False if there was nothing to do, or nothing for this worker: the one that serves has been told."""
        if (engine := self._engine_here()) is None:
            return False
        try:
            return self._wait_for(_driven(engine, run_id))
        except CancelledError:
            return False

    def query(self, query_id: int) -> None:
        """Returns at once: a query mostly waits, and must keep no thread from a run."""
        if engine := self._engine_here():
            driven = asyncio.run_coroutine_threadsafe(engine.query(query_id), self._loop)
            driven.add_done_callback(_log_failure)

    def _engine_here(self) -> Engine | None:
        if not self._hosts:
            raise RuntimeError("This worker hosts no engine: start it with the queue 'aggregation'.")
        if self._engine is None:
            live.work_waits()
        return self._engine

    def drain(self) -> None:
        """Give the runs back. Returns at once: it is called from a signal handler."""
        if self._hosts:
            self._loop.call_soon_threadsafe(self._end_work)

    def stop(self) -> None:
        if self._hosts:
            self._wait_for(self._disappear())
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _appear(self) -> None:
        """Raises `PortTaken`."""
        await database_sync_to_async(post.appear)(self._me)
        try:
            await self._stand()
        except PortTaken:
            await database_sync_to_async(post.leave)(self._me)
            raise

    def _end_work(self) -> None:
        for work in self._work:
            work.cancel()
        if self._engine:
            self._driven_by(self._engine.drain())

    async def _disappear(self) -> None:
        for work in self._work:
            work.cancel()
        if self._engine:
            await self._engine.stop()
        with contextlib.suppress(DatabaseError):  # the lease ends by itself
            await database_sync_to_async(post.leave)(self._me)

    async def _stand(self) -> None:
        """Be what the database says: the worker that serves, or one that stands by. Raises `PortTaken`."""
        standing = await database_sync_to_async(post.stand)(self._me)
        self._others = standing.others
        if standing.serves and self._engine is None:
            engine = build_engine(self._me)
            await engine.start()
            self._engine = engine
            logger.info("This worker serves", extra={"address": self._me.address})
        elif not standing.serves and self._engine:
            logger.warning("Another worker serves now; this one stands by")
            lost, self._engine = self._engine, None
            await lost.stop()
        if self._engine:
            self._engine.announce(standing.addresses)

    async def _watch(self) -> None:
        """For ever: who serves, and what there is to do, without waiting for the queue or for beat."""
        heard_at = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), LOOK_SECONDS)
            self._look_now.clear()
            try:
                await self._stand()
                if self._engine:
                    await self._take_up(self._engine)
                heard_at = time.monotonic()
            except DatabaseError as error:
                logger.warning("The database is away: %s", error)
                if self._engine and self._others and time.monotonic() - heard_at > CUT_OFF_SECONDS:
                    _end_cut_off()
            except PortTaken as error:
                logger.error("%s Another worker may serve.", error)
                await database_sync_to_async(post.step_back)(self._me)
            except Exception:
                logger.exception("The look for work has failed")

    async def _take_up(self, engine: Engine) -> None:
        run_ids, query_ids = await database_sync_to_async(_waiting_work)()
        for run_id in run_ids:
            self._driven_by(_driven(engine, run_id))
        for query_id in query_ids:
            self._driven_by(engine.query(query_id))

    def _driven_by(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._driven.add(task)
        task.add_done_callback(self._driven.discard)

    async def _listen(self) -> None:
        """What operators do reaches the engine at once, while Redis is there; without it, with the next renewal of a lease."""
        layer = get_channel_layer()
        assert layer is not None  # settings define one
        while True:
            try:
                channel = await layer.new_channel()
                await layer.group_add(live.CONTROL_GROUP, channel)
                while True:
                    self._dispatch(await layer.receive(channel))
            except Exception as error:  # whatever the layer's transport raises
                logger.warning("The channel layer is away: %s", error)
                await asyncio.sleep(CONTROL_RETRY_SECONDS)

    def _dispatch(self, message: dict[str, object]) -> None:
        if (engine := self._engine) is None:
            return
        match message:
            case {"type": "run.changed", "run_id": int(run_id)}:
                engine.nudge(run_id)
            case {"type": "query.changed", "query_id": int(query_id)}:
                engine.nudge_query(query_id)
            case {"type": "client.barred"}:
                engine.look_who_is_barred()
            case {"type": "work.waits"}:
                self._look_now.set()


def _waiting_work() -> tuple[list[int], list[int]]:
    """Ids of runs and of queries that nobody drives, and whose turn it is."""
    now = timezone.now()
    return (
        [*queue.lost_runs(), *queue.next_in_line(now)],
        list(Query.objects.without_owner(now).values_list("pk", flat=True)),
    )


def _end_cut_off() -> None:
    """Agents keep to a worker for as long as it is there, and this one is of no use to them."""
    logger.error("The database has been away for %g s, and another worker may serve: this one ends", CUT_OFF_SECONDS)
    os._exit(EXIT_CUT_OFF)


def _allow_many_connections() -> None:
    """As many as the system permits: an agent is a connection or two, and the usual limit of a shell is 1,024 files."""
    if resource:
        with contextlib.suppress(ValueError, OSError):  # some systems permit less than they say
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _driven(engine: Engine, run_id: int) -> bool:
    with RUNS_DRIVEN.track_inprogress():
        return await engine.run(run_id)


def _log_failure(driven: Future[bool]) -> None:
    if not driven.cancelled() and (error := driven.exception()):
        logger.error("A query could not be driven", exc_info=error)


@cache
def engine_host() -> EngineHost:
    return EngineHost()
