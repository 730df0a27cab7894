"""What the log lines of web and worker are about: a request or a socket with what its address names, or a task with what it was given."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery.signals import task_postrun, task_prerun
from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars, unbind_contextvars

NAMED = {
    "run_id": "run_id",
    "client_id": "client_id",
    "round_number": "round",
    "query_id": "query_id",
    "slug": "federation",
}
"""Parts of addresses, and what they are called in the log."""
GIVEN: Mapping[str, str] = {
    "aggregation.host_run": "run_id",
    "aggregation.host_query": "query_id",
    "alerts.evaluate_federation": "federation_id",
}
"""What a task's first argument is."""
_TASK_FIELDS = ("task", "task_id", *GIVEN.values())
_REQUEST_ID = re.compile(r"[\w-]{8,64}", re.ASCII)


class RequestContext:
    """A proxy's X-Request-ID is kept if it is one; the answer has it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = _request_id(request.headers.get("X-Request-ID", ""))
        _end_request()
        bind_contextvars(request_id=request_id)
        response = self.get_response(request)
        response["X-Request-ID"] = request_id
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], arguments: Sequence[Any], named: Mapping[str, Any]
    ) -> None:
        bind_contextvars(**_named(named))


def begin_socket(scope: Mapping[str, Any]) -> None:
    """A page's socket is a task of its own from beginning to end: nothing need be forgotten after it."""
    sent = dict(scope["headers"]).get(b"x-request-id", b"")
    bind_contextvars(request_id=_request_id(sent.decode("latin-1")), **_named(scope["url_route"]["kwargs"]))


def _request_id(sent: str) -> str:
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)


def _named(parts: Mapping[str, Any]) -> dict[str, str]:
    return {word: str(parts[name]) for name, word in NAMED.items() if name in parts}


@receiver(request_finished)
def _end_request(**_: Any) -> None:
    """Django logs of a refused request after all middleware: not before it is closed may this be forgotten."""
    unbind_contextvars("request_id", *NAMED.values())


@task_prerun.connect
def _begin_task(task_id: str = "", task: Any = None, args: Sequence[Any] = (), **_: Any) -> None:
    fields = {"task": task.name, "task_id": task_id}
    if args and task.name in GIVEN:
        fields[GIVEN[task.name]] = args[0]
    bind_contextvars(**fields)


@task_postrun.connect
def _end_task(**_: Any) -> None:
    """Threads of a worker do one task after the other."""
    unbind_contextvars(*_TASK_FIELDS)
