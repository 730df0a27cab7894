"""The web process in this one, for tests that make real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.asgi import application


@asynccontextmanager
async def web_server() -> AsyncIterator[int]:
    """The port of a web server on loopback."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, ws="wsproto", lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


def session_cookie(username: str) -> str:
    """What the browser of somebody sends who has signed in."""
    browser = Browser()
    browser.force_login(User.objects.get(username=username))
    assert SESSION_KEY in browser.session
    return f"{settings.SESSION_COOKIE_NAME}={browser.cookies[settings.SESSION_COOKIE_NAME].value}"
