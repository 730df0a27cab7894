"""Hosts the aggregation engine in a Celery worker: one event loop in a thread of its own, shared by all runs of the process.

The worker uses Celery's threads pool: each run's task waits in a thread while the loop does the work, so that one gRPC server on one port
serves all runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from concurrent.futures import CancelledError, Future
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import cast

from celery.exceptions import WorkerShutdown
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import DatabaseError

from aggregator.checkpoints import CheckpointStore
from aggregator.engine import Engine
from aggregator.ports import Evaluator
from aggregator.transport.server import PortTaken
from fedui.analytics.adapters import DatabaseQueryStore
from fedui.clients.registry import DatabaseClientRegistry
from fedui.clients.server_tls import ServerTLS
from fedui.metrics.counted import RUNS_DRIVEN
from fedui.runs import live
from fedui.runs.adapters import DatabaseEventSink, DatabaseRunStore
from fedui.runs.queue import lost_runs
from fedui.runs.store import model_files

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

CONTROL_RETRY_SECONDS = 2.0
LOOK_SECONDS = 1.5
"""How often a worker looks for runs whose own worker is lost."""
EXIT_PORT_TAKEN = 3


def find_evaluator(app: str) -> Evaluator | None:
    """The evaluator that an installed package registers for the app (entry point group `fedui.evaluators`), if any."""
    for entry_point in entry_points(group="fedui.evaluators", name=app):
        try:
            return cast(Evaluator, entry_point.load())
        except ImportError:
            logger.exception("The evaluator of app %s can't be loaded", app)
    return None


def build_engine() -> Engine:
    """The engine over the database."""
    return Engine(
        owner=f"{socket.gethostname()}:{os.getpid()}",
        bind=settings.GRPC_BIND,
        tls=ServerTLS(settings.GRPC_HOSTS),
        registry=DatabaseClientRegistry(),
        store=DatabaseRunStore(),
        models=CheckpointStore(model_files()),
        events=DatabaseEventSink(),
        find_evaluator=find_evaluator,
        queries=DatabaseQueryStore(),
        uploads=Path(settings.UPLOAD_DIR),
        transfer_limits=settings.TRANSFER_LIMITS,
    )


class EngineHost:
    """Threads of the worker call this; the engine lives on the loop's thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._engine: Engine | None = None

    def start(self) -> None:
        """Ends the worker with one clear line if the port is taken."""
        _allow_many_connections()
        threading.Thread(target=self._loop.run_forever, name="engine", daemon=True).start()
        engine = build_engine()
        try:
            asyncio.run_coroutine_threadsafe(engine.start(), self._loop).result()
        except PortTaken as error:
            logger.error("%s", error)
            raise WorkerShutdown(EXIT_PORT_TAKEN) from error
        self._engine = engine
        for work in (self._listen(engine), _take_up_lost_runs(engine)):
            asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, run_id: int) -> bool:
        try:
            with RUNS_DRIVEN.track_inprogress():
                return asyncio.run_coroutine_threadsafe(self._started().run(run_id), self._loop).result()
        except CancelledError:
            return False

    def query(self, query_id: int) -> None:
        """Returns at once: a query mostly waits, and must keep no thread from a run."""
        driven = asyncio.run_coroutine_threadsafe(self._started().query(query_id), self._loop)
        driven.add_done_callback(_log_failure)

    def _started(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("This worker hosts no engine: start it with the queue 'aggregation'.")
        return self._engine

    def drain(self) -> None:
        """Give the runs back. Returns at once: it is called from a signal handler."""
        if self._engine:
            asyncio.run_coroutine_threadsafe(self._engine.drain(), self._loop)

    def stop(self) -> None:
        if self._engine:
            asyncio.run_coroutine_threadsafe(self._engine.stop(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self, engine: Engine) -> None:
        """What operators do reaches the engine at once, while Redis is there; without it, with the next renewal of a lease."""
        layer = get_channel_layer()
        assert layer is not None  # settings define one
        while True:
            try:
                channel = await layer.new_channel()
                await layer.group_add(live.CONTROL_GROUP, channel)
                while True:
                    _dispatch(engine, await layer.receive(channel))
            except Exception as error:  # whatever the layer's transport raises
                logger.warning("The channel layer is away: %s", error)
                await asyncio.sleep(CONTROL_RETRY_SECONDS)


def _allow_many_connections() -> None:
    """As many as the system permits: an agent is a connection or two, and the usual limit of a shell is 1,024 files."""
    if resource:
        with contextlib.suppress(ValueError, OSError):  # some systems permit less than they say
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _take_up_lost_runs(engine: Engine) -> None:
    """For ever: what another worker has lost, without waiting for the queue or for beat."""
    tasks: set[asyncio.Task[bool]] = set()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            lost = await database_sync_to_async(lost_runs)()
        except DatabaseError as error:
            logger.warning("The database is away: %s", error)
            continue
        for run_id in lost:
            task = asyncio.create_task(_driven(engine, run_id))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _driven(engine: Engine, run_id: int) -> bool:
    with RUNS_DRIVEN.track_inprogress():
        return await engine.run(run_id)


def _log_failure(driven: Future[bool]) -> None:
    if not driven.cancelled() and (error := driven.exception()):
        logger.error("A query could not be driven", exc_info=error)


def _dispatch(engine: Engine, message: dict[str, object]) -> None:
    match message:
        case {"type": "run.changed", "run_id": int(run_id)}:
            engine.nudge(run_id)
        case {"type": "query.changed", "query_id": int(query_id)}:
            engine.nudge_query(query_id)
        case {"type": "client.barred"}:
            engine.look_who_is_barred()


@cache
def engine_host() -> EngineHost:
    return EngineHost()
