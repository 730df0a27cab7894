"""The lock holds what pyproject.toml asks for. No index is asked: whether newer versions exist is of no interest here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED_EXTRAS = ("server", "agent", "dev")


def asked_for() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in project["dependencies"] + [line for extra in LOCKED_EXTRAS for line in extras[extra]]:
        yield Requirement(line)


def pins() -> list[Requirement]:
    """One a version: a package may have several, for different Pythons."""
    return [Requirement(line) for line in re.findall(r"^([\w.-]+.*==.+?) \\$", LOCK, re.MULTILINE)]


def test_every_requirement_is_pinned_to_versions_that_satisfy_it() -> None:
    for asked in asked_for():
        versions = [str(pin.specifier).removeprefix("==") for pin in pins() if same(pin, asked)]
        assert versions, f"{asked} is not in the lock: run `make lock`"
        assert all(map(asked.specifier.contains, versions)), f"{asked} is locked at {versions}: run `make lock`"


def same(one: Requirement, other: Requirement) -> bool:
    return canonicalize_name(one.name) == canonicalize_name(other.name)


def test_every_pin_has_hashes() -> None:
    entries = re.split(r"^(?=[\w.-]+(?:\[[\w,-]+\])?==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_torch_and_its_gigabytes_stay_out() -> None:
    assert not {"torch", "scikit-learn"} & {pin.name for pin in pins()}


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCK
