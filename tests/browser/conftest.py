"""Chromium against Django's live server. That server speaks no WebSocket: what pages do live is tested end to end.

Where looks matter, a page is told that its WebSocket is open; it hears nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.account.internal.flows.login import record_authentication
from django.conf import settings
from django.http import HttpRequest
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from fedui.accounts.models import User
from tests.support.population import World, populate

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
HERE = Path(__file__).parent

expect.set_options(timeout=20_000)  # A busy machine takes its time; a page that is right is right at once.

Open = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    # Playwright's own loop runs in this thread while a page is open; Django must not take it for a reason to refuse queries.
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def world(transactional_db: None) -> World:
    return populate()


@pytest.fixture
def complaints() -> list[str]:
    """Everything that pages have written to the console as an error, refusals of the content security policy included."""
    return []


@pytest.fixture
def sign_in(chromium: Browser, live_server: Any, complaints: list[str]) -> Iterator[Open]:
    """`sign_in(user, width=…, scheme=…)` gives a page of a browser that is signed in; without a user, of one that isn't.

    `connected`: the page takes its WebSocket for open, and doesn't say that it reconnects. `fresh`: the password was given just now.
    """
    contexts: list[BrowserContext] = []

    def open_page(
        user: User | None = None,
        *,
        width: int = 1440,
        scheme: Any = "light",
        connected: bool = False,
        fresh: bool = False,
    ) -> Page:
        context = chromium.new_context(
            base_url=live_server.url, viewport={"width": width, "height": 844}, color_scheme=scheme
        )
        if connected:
            context.route_web_socket(re.compile("/ws/"), lambda _: None)
        contexts.append(context)
        if user:
            context.add_cookies(
                [{"name": settings.SESSION_COOKIE_NAME, "value": _session(user, fresh=fresh), "url": live_server.url}]
            )
        page = context.new_page()
        page.on("console", lambda message: _note(complaints, message))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()


def _session(user: User, *, fresh: bool) -> str:
    client = Client()
    client.force_login(user)
    if fresh:
        request = HttpRequest()
        request.session = client.session
        record_authentication(request, user, method="password", reauthenticated=True)
        request.session.save()
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def _note(complaints: list[str], message: ConsoleMessage) -> None:
    if message.type == "error" and "WebSocket" not in message.text:
        complaints.append(f"{message.text} ({message.location.get('url')})")
