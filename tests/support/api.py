"""Callers of the REST API, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.test import Client as Browser

from fedui.accounts.models import User


@dataclass
class Caller:
    """Somebody who calls, in one way."""

    browser: Browser = field(default_factory=Browser)
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Any:
        return self.browser.get(f"/api/v1/{path}", headers=self._all(headers))

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("post", path, body, **headers)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Headers as keyword arguments: `if_match="…"`."""
        send = getattr(self.browser, method)
        sent = {} if body is None and method == "delete" else body or {}
        return send(f"/api/v1/{path}", sent, content_type="application/json", headers=self._all(headers))

    def _all(self, headers: dict[str, str]) -> dict[str, str]:
        return self.headers | {name.replace("_", "-"): value for name, value in headers.items()}


def as_user(user: User) -> Caller:
    """By a session."""
    browser = Browser()
    browser.force_login(user)
    return Caller(browser)


def with_key(text: str) -> Caller:
    return Caller(headers={"authorization": f"Bearer {text}"})
