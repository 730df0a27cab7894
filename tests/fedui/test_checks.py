"""System checks: settings that are unsafe together."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from fedui.checks import check_exposure

SAFE: dict[str, Any] = {
    "ALLOWED_HOSTS": ["fedui.example.org"],
    "DEBUG": False,
    "SECURE": True,
    "PUBLIC_URL": "https://fedui.example.org",
    "GRPC_ADDRESS": "fedui.example.org:50051",
}
LOCAL: dict[str, Any] = {
    "ALLOWED_HOSTS": ["localhost"],
    "DEBUG": True,
    "SECURE": False,
    "PUBLIC_URL": "http://localhost:8000",
    "GRPC_ADDRESS": "127.0.0.1:50051",
}


def found(settings: Settings, values: dict[str, Any]) -> list[str | None]:
    for name, value in values.items():
        setattr(settings, name, value)
    return [message.id for message in check_exposure()]


@pytest.mark.parametrize("values", [SAFE, LOCAL])
def test_nothing_to_say(settings: Settings, values: dict[str, Any]) -> None:
    assert found(settings, values) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DEBUG": True}, "fedui.E002"),
        ({"ALLOWED_HOSTS": ["*"]}, "fedui.E003"),
        ({"SECURE": False}, "fedui.W001"),
        ({"PUBLIC_URL": "http://fedui.example.org"}, "fedui.W002"),
        ({"GRPC_ADDRESS": "0.0.0.0:50051"}, "fedui.W003"),
        ({"GRPC_ADDRESS": "fedui.example.org:0"}, "fedui.W003"),
    ],
)
def test_unsafe_settings_are_named(settings: Settings, changes: dict[str, Any], message: str) -> None:
    assert found(settings, SAFE | changes) == [message]
