"""What the agent's log lines are about: the client, and the run, round and task that are at work. `--log-format json` adds it to each."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

from protos.fedui.v1 import task_pb2

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


def bind(**fields: object) -> None:
    """From here on in this task, in the tasks that it begins, and in the training that it waits for."""
    _about.set(MappingProxyType({**_about.get(), **fields}))


def about() -> Mapping[str, object]:
    return _about.get()


def names_of(task: task_pb2.Task) -> dict[str, object]:
    """By which a task is known at the server, too; the `run_id` of a query reads `query-7`."""
    return {"run_id": task.run_id, "round": task.round, "task_id": task.task_id}
