"""The documents name every variable that the programs read, and none that they don't."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from client_agent.config import Settings

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()
SETTINGS = (ROOT / "fedui" / "settings.py").read_text()


def test_the_servers_variables() -> None:
    read = set(re.findall(r'env\.\w+\(\s*"((?:FEDUI_)?[A-Z_]+)"', SETTINGS))
    documented = set(re.findall(r"^\| `((?:FEDUI_)?[A-Z_]+)` \|", DOCUMENT, re.MULTILINE))
    assert read == documented


def test_the_agents_variables() -> None:
    read = {f"FEDAGENT_{field.name.upper()}" for field in fields(Settings)} | {"FEDAGENT_HOME"}
    documented = set(re.findall(r"^\| (?:`--[\w-]+` )?\| `(FEDAGENT_\w+)`", DOCUMENT, re.MULTILINE))
    assert read == documented
