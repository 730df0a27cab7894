"""The agent as a whole: apps, tasks and connection put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import signal
from collections.abc import Coroutine

import client_agent
from client_agent import backoff, cards, log_context, scalars
from client_agent.connection import Connection
from client_agent.departures import Departures
from client_agent.errors import ConfigurationError
from client_agent.hosting import HostedApp, HostedApps
from client_agent.identity import Home, Identities, Identity
from client_agent.ledger import Ledger
from client_agent.memory import Memory
from client_agent.method_state import MethodStates
from client_agent.metrics import AgentMetrics, served
from client_agent.outbox import Outbox
from client_agent.owner import Owner
from client_agent.renewal import Renewal
from client_agent.servers import Servers
from client_agent.shared_models import SharedModels
from client_agent.speed import Speed
from client_agent.state import StateFile, now
from client_agent.tasks import Tasks
from client_agent.transfer import Transfer
from client_agent.vitals import Vitals
from protos import limits
from protos.convert import signature_to_proto
from protos.fedui.v1 import fleet_pb2, task_pb2

log = logging.getLogger(__name__)


def run(
    home: Home,
    identity: Identity,
    apps: HostedApps,
    owner: Owner,
    max_delay: float = backoff.MAX_SECONDS,
    max_tasks: int = 1,
    metrics_port: int = 0,
) -> None:
    """`serve` until SIGINT or SIGTERM."""
    with contextlib.suppress(KeyboardInterrupt):  # where loops can't handle signals, as on Windows
        serving = serve(home, identity, apps, max_delay, owner, max_tasks=max_tasks, metrics_port=metrics_port)
        asyncio.run(until_signalled(serving))


async def until_signalled(serving: Coroutine[None, None, None]) -> None:
    """Run `serving`, and cancel it at SIGINT or SIGTERM."""
    task = asyncio.ensure_future(serving)
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def serve(
    home: Home,
    identity: Identity,
    apps: HostedApps,
    max_delay: float = backoff.MAX_SECONDS,
    owner: Owner | None = None,
    models: SharedModels | None = None,
    max_tasks: int = 1,
    metrics_port: int = 0,
) -> None:
    """Work for the federation until cancelled, on `max_tasks` tasks at once.

    Raises `Dismissed`, `CertificateExpired`, and `ConfigurationError` when what leaves can't be listed, or `metrics_port` is taken.
    """
    federation = identity.enrolment.federation
    log_context.bind(federation=federation, client_id=identity.enrolment.client_id)
    owner = owner or Owner(home, federation)
    state = StateFile(home.state_file)
    outbox = Outbox()
    identities = Identities(home, identity)
    departures = Departures(Ledger(home.log_file), owner.leave, federation)
    speed = Speed()
    transfers = [Transfer(identities, departures, max_delay, models, speed) for _ in range(max_tasks)]
    states = MethodStates(home.path / "methods" / identity.enrolment.client_id)
    memory = Memory(home.path / "updates" / identity.enrolment.client_id)
    counts = AgentMetrics(lambda: state.current, speed, lambda: identities.current.enrolment.certificate_expires_at)

    def on_change(task: task_pb2.Task | None) -> None:
        state.working_on(_summary(task))
        counts.working_on(task)

    tasks = Tasks(apps, transfers, outbox, on_change, states, owner, memory)
    vitals = Vitals(home.path, speed)
    await vitals.look_at_gpus()
    greeting = hello(apps)
    greeting.max_tasks = max_tasks

    def hello_now() -> fleet_pb2.Hello:
        fresh = fleet_pb2.Hello(
            tasks_in_hand=tasks.in_hand(),
            unavailable=owner.unavailable(),
            machine=vitals.machine(),
            kept_runs=memory.runs(),
        )
        fresh.MergeFrom(greeting)
        return fresh

    def obey_owner(unavailable: str) -> None:
        state.available(unavailable)
        outbox.put_availability(unavailable)
        if unavailable:
            tasks.stand_down(unavailable)
        log.info("No tasks from now on. %s" if unavailable else "Tasks are taken again%s", unavailable)

    servers = Servers(home.servers_file, identity.enrolment.grpc_address)
    connection = Connection(identities, hello_now, tasks, outbox, state, departures, vitals, servers, max_delay)
    renewal = Renewal(identities, departures, max_delay=max_delay)
    try:
        with served(counts, metrics_port):
            await _first_failure(
                connection.run(),
                tasks.run(),
                renewal.run(),
                owner.watch(obey_owner),
                vitals.watch(),
                departures.until_failure(),
            )
    finally:
        for transfer in transfers:
            await transfer.close()
        state.ended()
        with contextlib.suppress(ConfigurationError):  # it has been told, or the agent ends anyway
            departures.close()


def hello(apps: HostedApps) -> fleet_pb2.Hello:
    """What this agent is and offers."""
    offered = list(apps.values())
    message = fleet_pb2.Hello(
        protocol_major=limits.PROTOCOL_MAJOR,
        protocol_minor=limits.PROTOCOL_MINOR,
        agent_version=client_agent.__version__,
        platform=platform.platform(),
        apps=[_offer(hosted) for hosted in offered],
        cards=cards.of(offered),
    )
    if offered:
        for name, scalar in _properties(offered[0]).items():
            message.properties[name].CopyFrom(scalar)
    return message


def _offer(hosted: HostedApp) -> fleet_pb2.AppOffer:
    app = hosted.app
    return fleet_pb2.AppOffer(
        name=app.name,
        version=app.version,
        framework=app.framework,
        signature=signature_to_proto(hosted.signature),
        columns=hosted.columns.names,
    )


def _properties(hosted: HostedApp) -> scalars.ProtoScalars:
    """Properties are a courtesy: an app that fails to tell them can still train."""
    try:
        return scalars.to_proto(hosted.client.get_properties({}))
    except Exception:
        log.warning("App %s can't tell its properties", hosted.app.name, exc_info=True)
        return {}


def _summary(task: task_pb2.Task | None) -> dict[str, str | int] | None:
    if task is None:
        return None
    kind = task_pb2.TaskKind.Name(task.kind).removeprefix("TASK_KIND_").lower()
    return {"task_id": task.task_id, "app": task.app, "kind": kind, "round": task.round, "since": now()}


async def _first_failure(*endless: Coroutine[None, None, None]) -> None:
    """Run them together; when one fails, cancel the others and raise its error. Each is cancelled only once, and may say farewell."""
    running = [asyncio.ensure_future(coroutine) for coroutine in endless]
    try:
        ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        for one in ended:
            one.result()
    finally:
        for one in running:
            one.cancel()
        await asyncio.wait(running)
