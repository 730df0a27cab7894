"""What is said over the channel layer, to browsers and to workers. Nothing else calls `group_send`.

Delivery is at most once and may fail when Redis is away: nothing here is the truth, and no caller may depend on it. Browsers catch up by
sequence number; workers read the database every few seconds anyway.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from fedui.clients.models import Client
from fedui.runs.models import Run, RunCommand
from fedui.runs.serialize import command_payload

logger = logging.getLogger(__name__)

CONTROL_GROUP = "engine.control"


def run_group(run_id: int) -> str:
    return f"run.{run_id}"


def federation_group(federation_id: str) -> str:
    return f"federation.{federation_id}"


def user_group(user_id: int) -> str:
    return f"user.{user_id}"


async def publish_events(run_id: int, payloads: Sequence[dict[str, Any]]) -> None:
    """Events of a run, stored already, to the browsers that watch it: written out once, however many they are."""
    frame = json.dumps({"type": "events", "events": list(payloads)}, separators=(",", ":"))
    await _send(run_group(run_id), {"type": "run.events", "frame": frame})


async def runs_changed(federation_id: str) -> None:
    await _send(federation_group(federation_id), {"type": "federation.changed", "what": "runs"})


async def clients_changed(federation_id: str) -> None:
    await _send(federation_group(federation_id), {"type": "federation.changed", "what": "clients"})


async def alerts_changed(federation_id: str) -> None:
    await _send(federation_group(federation_id), {"type": "federation.changed", "what": "alerts"})


async def vitals_changed(federation_id: str) -> None:
    await _send(federation_group(federation_id), {"type": "federation.changed", "what": "vitals"})


def run_changed(run: Run) -> None:
    """An operator has changed what they want of a run: the worker that drives it should look now."""
    async_to_sync(_send)(CONTROL_GROUP, {"type": "run.changed", "run_id": run.pk})
    async_to_sync(runs_changed)(str(run.federation_id))


def run_commanded(command: RunCommand) -> None:
    """To the browsers that watch the run: somebody has done something to it."""
    async_to_sync(_send)(run_group(command.run_id), {"type": "run.command", "command": command_payload(command)})


async def queries_changed(federation_id: str) -> None:
    await _send(federation_group(federation_id), {"type": "federation.changed", "what": "queries"})


def query_changed(federation_id: str, query_id: int) -> None:
    """A query was created or cancelled: the worker that drives it should look now."""
    async_to_sync(_send)(CONTROL_GROUP, {"type": "query.changed", "query_id": query_id})
    async_to_sync(queries_changed)(federation_id)


def access_changed(user_id: int) -> None:
    """A person's rights or sessions are not what they were: open pages ask anew whether they may stay."""
    async_to_sync(_send)(user_group(user_id), {"type": "access.changed"})


def work_waits() -> None:
    """There is something to drive, which a worker has heard of that stands by: the one that serves should look now."""
    async_to_sync(_send)(CONTROL_GROUP, {"type": "work.waits"})


def client_barred(client: Client) -> None:
    """A client may not stay connected, wherever it is. Engines read who is barred every second anyway."""
    async_to_sync(_send)(CONTROL_GROUP, {"type": "client.barred"})
    async_to_sync(clients_changed)(str(client.federation_id))


async def leave(group: str, channel: str) -> None:
    layer = get_channel_layer()
    assert layer is not None  # settings define one
    try:
        await layer.group_discard(group, channel)
    except Exception as error:  # whatever the layer's transport raises
        logger.warning("The channel layer is away: %s", error, extra={"group": group})


async def _send(group: str, message: dict[str, Any]) -> None:
    layer = get_channel_layer()
    assert layer is not None  # settings define one
    try:
        await layer.group_send(group, message)
    except Exception as error:  # whatever the layer's transport raises
        logger.warning("The channel layer is away: %s", error, extra={"group": group})
