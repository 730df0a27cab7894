"""Settings that are each right by themselves and unsafe together. `manage.py check` and every start say so."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning

from fedui.environment import host_of, is_loopback


def check_exposure(**_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    public = [host for host in settings.ALLOWED_HOSTS if not is_loopback(host)]
    if settings.DEBUG and public:
        found.append(
            Error(
                f"FEDUI_DEBUG shows source and settings to everybody who reaches {', '.join(public)}.",
                hint="Unset FEDUI_DEBUG, or leave only this machine in FEDUI_ALLOWED_HOSTS.",
                id="fedui.E002",
            )
        )
    if public and not settings.SECURE:
        found.append(
            CheckWarning(
                "FEDUI_SECURE is off, but the pages can be reached from other machines: passwords travel unencrypted.",
                hint="Put a proxy with TLS in front and unset FEDUI_SECURE.",
                id="fedui.W001",
            )
        )
    if settings.SECURE and urlsplit(settings.PUBLIC_URL).scheme != "https":
        found.append(
            CheckWarning(
                f"FEDUI_SECURE is on, but FEDUI_PUBLIC_URL is {settings.PUBLIC_URL}: agents would enrol by plain HTTP.",
                hint="Set FEDUI_PUBLIC_URL to the https:// address that people and agents use.",
                id="fedui.W002",
            )
        )
    if "*" in settings.ALLOWED_HOSTS:
        found.append(
            Error(
                "FEDUI_ALLOWED_HOSTS is *: any page on the web could open WebSockets here in a member's name.",
                hint="Name the hosts that people use.",
                id="fedui.E003",
            )
        )
    if settings.GRPC_ADDRESS.endswith(":0") or host_of(settings.GRPC_ADDRESS) in ("0.0.0.0", "::"):  # noqa: S104  # a comparison
        found.append(
            CheckWarning(
                f"Agents would be told to connect to {settings.GRPC_ADDRESS}, where nobody can.",
                hint="Set FEDUI_GRPC_ADDRESS to the host and port at which agents reach this server.",
                id="fedui.W003",
            )
        )
    return found
