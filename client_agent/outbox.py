"""What waits to be sent to the server. It outlives a lost stream, so that results are delivered by the next one."""

from __future__ import annotations

import asyncio

from protos.fedui.v1 import fleet_pb2, task_pb2


class Outbox:
    """First in, first out, except that a newer message takes the place of the one that it makes stale."""

    def __init__(self) -> None:
        self._waiting: dict[str, fleet_pb2.AgentMessage] = {}
        self._filled = asyncio.Event()

    def put_progress(self, progress: task_pb2.Progress) -> None:
        self._put(fleet_pb2.AgentMessage(progress=progress))

    def put_result(self, result: task_pb2.TaskResult) -> None:
        self._put(fleet_pb2.AgentMessage(result=result))

    def put_heartbeat(self, heartbeat: fleet_pb2.Heartbeat) -> None:
        self._put(fleet_pb2.AgentMessage(heartbeat=heartbeat))

    def put_availability(self, unavailable: str) -> None:
        self._put(fleet_pb2.AgentMessage(availability=fleet_pb2.Availability(unavailable=unavailable)))

    def put_back(self, message: fleet_pb2.AgentMessage) -> None:
        """Return a message that could not be sent, unless a newer one has come meanwhile."""
        self._waiting = {_key(message): message} | self._waiting
        self._filled.set()

    async def take(self) -> fleet_pb2.AgentMessage:
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    def unsent_results(self) -> list[str]:
        """The task ids of results that no stream has taken yet."""
        return [message.result.task_id for message in self._waiting.values() if message.HasField("result")]

    def _put(self, message: fleet_pb2.AgentMessage) -> None:
        self._waiting[_key(message)] = message
        self._filled.set()


def _key(message: fleet_pb2.AgentMessage) -> str:
    """Messages with the same key make each other stale."""
    body = message.WhichOneof("body")
    match body:
        case "progress":
            return f"{body} {message.progress.phase} {message.progress.task_id}"
        case "result":
            return f"{body} {message.result.task_id}"
    return str(body)
