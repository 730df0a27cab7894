"""What log lines are about: the run, the round, the client whose work a task does. What hosts the engine adds it to each line."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


def bind(**fields: object) -> None:
    """From here on in this task, and in the tasks that it begins."""
    _about.set(MappingProxyType({**_about.get(), **fields}))


def about() -> Mapping[str, object]:
    return _about.get()
