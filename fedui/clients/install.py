"""The lines that an operator pastes at a site, and what they fetch. All of it comes from this server."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from importlib.resources import files
from urllib.parse import urlsplit

from django.conf import settings

from fedui.clients.agent_wheel import agent_wheel
from fedui.environment import is_loopback


@dataclass(frozen=True, slots=True)
class Line:
    """One way to install, enrol and run an agent."""

    title: str
    command: str
    note: str


def lines(token: str) -> list[Line]:
    url = settings.PUBLIC_URL
    shell = f"curl -fsSL {shlex.quote(url + '/install.sh')} | FEDAGENT_TOKEN={token} sh"
    powershell = f"$env:FEDAGENT_TOKEN='{token}'; irm {_powershell(url + '/install.ps1')} | iex"
    own = f"fedagent enroll {shlex.quote(url)} --token {token} && fedagent run"
    return [
        Line(
            "Linux and macOS",
            shell,
            "Needs Python 3.11 or newer and curl. Installs into the user's own folder, without root.",
        ),
        Line("Windows", powershell, "For PowerShell, with Python 3.11 or newer. Our own tests don't run on Windows."),
        Line(
            "Docker",
            _docker(token),
            "Keeps the agent's identity in the volume “fedagent”, and starts it again with the machine.",
        ),
        Line("fedagent is installed already", own, "In an environment of your own, with your own training code."),
    ]


def _docker(token: str) -> str:
    fetch = f'from urllib.request import urlopen as u; print(u("{settings.PUBLIC_URL}/install.sh").read().decode())'
    return (
        f"docker run -d --name fedagent --restart unless-stopped -v fedagent:/root -e FEDAGENT_TOKEN={token} "
        f"{shlex.quote(settings.AGENT_IMAGE)} sh -c {shlex.quote(f'python3 -c {shlex.quote(fetch)} | sh')}"
    )


def warning() -> str:
    """Why the lines won't work at other machines; empty if they will."""
    url = settings.PUBLIC_URL
    parts = urlsplit(url)
    if is_loopback(parts.hostname or ""):
        return f"The lines work on this machine alone: the server calls itself {url}. FEDUI_PUBLIC_URL sets what sites reach."
    if parts.scheme == "http":
        return (
            "This server is reached over plain HTTP, and agents send no token over it. Put a proxy with TLS in front, and set "
            "FEDUI_PUBLIC_URL to its https:// address."
        )
    return ""


def package() -> str:
    """What sites give to pip."""
    if settings.AGENT_PACKAGE:
        return str(settings.AGENT_PACKAGE)
    wheel = agent_wheel()
    return f"fedui-agent[agent] @ {settings.PUBLIC_URL}/install/{wheel.filename}#sha256={wheel.sha256}"


def shell_script() -> str:
    index = f"--index-url {shlex.quote(settings.AGENT_INDEX_URL)}" if settings.AGENT_INDEX_URL else ""
    values = {"URL": shlex.quote(settings.PUBLIC_URL), "PACKAGE": shlex.quote(package()), "INDEX": index}
    return _filled("install.sh", values)


def powershell_script() -> str:
    index = f"--index-url {_powershell(settings.AGENT_INDEX_URL)}" if settings.AGENT_INDEX_URL else ""
    values = {"URL": _powershell(settings.PUBLIC_URL), "PACKAGE": _powershell(package()), "INDEX": index}
    return _filled("install.ps1", values)


def _filled(name: str, values: dict[str, str]) -> str:
    script = (files("fedui.clients") / "scripts" / name).read_text()
    for name, value in values.items():
        script = script.replace(f"@{name}@", value)
    return script


def _powershell(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
