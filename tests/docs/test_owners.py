"""docs/owners.md: its example is a policy, with every key that there is; so is its table."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from client_agent.policy import AppRule, CardRule, Leave, Limits, Policy, Requirements, read

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "owners.md").read_text()
EXAMPLE = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)[0]
TABLES: dict[str, type] = {"limits": Limits, "require": Requirements, "leave": Leave}


def keys_that_there_are() -> set[str]:
    top = {field.name for field in fields(Policy)} - TABLES.keys() - {"apps"}
    nested = {f"{table}.{field.name}" for table, kind in TABLES.items() for field in fields(kind)}
    cards = {f"leave.cards.NAME.{field.name}" for field in fields(CardRule)}
    return top | nested - {"leave.cards"} | cards | {f"apps.NAME.{field.name}" for field in fields(AppRule)}


def keys_of(example: dict[str, Any]) -> set[str]:
    apps = {f"apps.NAME.{key}" for rule in example.pop("apps").values() for key in rule}
    cards = {f"leave.cards.NAME.{key}" for rule in example["leave"].pop("cards").values() for key in rule}
    nested = {f"{table}.{key}" for table in TABLES for key in example.pop(table)}
    return apps | cards | nested | example.keys()


def test_the_example_has_every_key(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(EXAMPLE)
    policy = read(tmp_path / "policy.toml")
    assert policy.limits.epochs == 5
    assert keys_of(tomllib.loads(EXAMPLE)) == keys_that_there_are()


def test_the_table_has_every_key() -> None:
    rows = re.findall(r"^\| (`[\w.]+`(?:, `[\w.]+`)*) \| [A-Z]", DOCUMENT, re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`([\w.]+)`", row)} == keys_that_there_are()
