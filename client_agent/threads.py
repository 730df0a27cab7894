"""Running a client's code beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T], stop: Callable[[], None]) -> T:
    """Run `function` in a thread, whose log lines are about what ours are about. When cancelled, call `stop` and wait for the
    thread's end: two trainings of one client at a time would share its state.

    The thread is a daemon, unlike an executor's: training that doesn't listen must not keep a stopped agent alive.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    outcome: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # Also SystemExit: an app's sys.exit() ends its task, not the agent.
            errors.append(error)
        with contextlib.suppress(RuntimeError):  # The agent may have stopped and closed its loop.
            loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=copy_context().run, args=(call,), name="training", daemon=True).start()
    try:
        await ended.wait()
    except asyncio.CancelledError:
        stop()
        await ended.wait()
        raise
    if errors:
        raise ClientError(errors[0]) from errors[0]
    return outcome[0]


class ClientError(Exception):
    """A client's code raised `cause`."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.cause = cause
