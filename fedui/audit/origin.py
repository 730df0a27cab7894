"""Where an act comes from: the request that is being answered, or the process. So signals and services need no request."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from fedui.accounts.models import User

AGENT = "agent"
"""Who acts in the audit log when an agent does."""
ENGINE = "engine"
"""Who acts where the aggregator decides."""
NOBODY = "somebody"
"""Who acts when a stranger does."""

_request: ContextVar[HttpRequest | None] = ContextVar("request", default=None)


class OriginMiddleware:
    """Lets `current_request` find the request for as long as it is answered."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        token = _request.set(request)
        try:
            return self.get_response(request)
        finally:
            _request.reset(token)


def current_request() -> HttpRequest | None:
    return _request.get()


def current_address() -> str | None:
    request = current_request()
    return request.META.get("REMOTE_ADDR") if request else None


def current_api_key() -> str | None:
    """The prefix of the API key by which the request was let in."""
    key = getattr(current_request(), "api_key", None)
    return key.prefix if key else None


def acting() -> User | str:
    """Who is signed in to the request; on the command line, the account of the operating system."""
    request = current_request()
    if request is None:
        return f"{getpass.getuser()} on the server"
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else NOBODY


def via(actor: object) -> str:
    """The way in: web, api, agent, engine or command."""
    request = current_request()
    if request is not None:
        return "api" if request.path.startswith("/api/") else "web"
    return str(actor) if actor in (AGENT, ENGINE) else "command"
