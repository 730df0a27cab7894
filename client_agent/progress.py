"""One task's progress: written by the thread that trains, read by the loop that talks to the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

from client_agent import scalars
from client_agent.errors import TaskCancelled
from protos.convert import ScalarValue
from protos.fedui.v1 import task_pb2
from protos.tensors import CodecError

MIN_INTERVAL_SECONDS = 0.25
"""Between two progress messages of one task: nobody can watch more than four a second."""


class TaskProgress:
    """The `sdk.Progress` of a client at work, and of the transfers before and after.

    Make it on the event loop. `report` and `sleep` may be called from any thread, everything else from the loop's.
    """

    def __init__(self, task_id: str, send: Callable[[task_pb2.Progress], None]) -> None:
        self._task_id = task_id
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._cancelled = threading.Event()
        self._time_is_up = threading.Event()
        self.steps: tuple[int, int] | None = None
        """Of a training that tells: done, and planned."""
        self._lock = threading.Lock()
        self._phase: task_pb2.Phase.ValueType = task_pb2.PHASE_UNSPECIFIED
        self._latest: task_pb2.Progress | None = None
        self._changed = asyncio.Event()

    def report(self, fraction: float, metrics: Mapping[str, ScalarValue]) -> None:
        self._raise_if_cancelled()
        message = task_pb2.Progress(task_id=self._task_id, phase=self._phase, fraction=min(max(fraction, 0.0), 1.0))
        _set_metrics(message, metrics)
        with self._lock:
            wake = self._latest is None
            self._latest = message
        if wake:
            self._loop.call_soon_threadsafe(self._changed.set)

    def sleep(self, seconds: float) -> None:
        self._cancelled.wait(seconds)
        self._raise_if_cancelled()

    def may_go_on(self, done: int, planned: int) -> bool:
        self._raise_if_cancelled()
        self.steps = (done, planned)
        return not (done and self._time_is_up.is_set())

    def end_early(self) -> None:
        """Let the training end after its present step, with what it has come to."""
        self._time_is_up.set()

    def cancel(self) -> None:
        """Let the client's next call of `report` or `sleep` raise `TaskCancelled`."""
        self._cancelled.set()

    def enter(self, phase: task_pb2.Phase.ValueType) -> None:
        """Send what is left of the last phase and the beginning of this one."""
        self.flush()
        self._phase = phase
        self._send(task_pb2.Progress(task_id=self._task_id, phase=phase))

    def flush(self) -> None:
        with self._lock:
            message, self._latest = self._latest, None
        if message is not None:
            self._send(message)

    async def forward(self) -> None:
        """Send the newest value whenever there is one, at most once in `MIN_INTERVAL_SECONDS`, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self.flush()
            await asyncio.sleep(MIN_INTERVAL_SECONDS)

    def _raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise TaskCancelled("The server cancelled this task.")


def _set_metrics(message: task_pb2.Progress, metrics: Mapping[str, ScalarValue]) -> None:
    """A metric that can't be sent is named in the message: progress is no reason to end a training."""
    try:
        for name, scalar in scalars.to_proto(metrics).items():
            message.metrics[name].CopyFrom(scalar)
    except CodecError as error:
        message.message = str(error)
