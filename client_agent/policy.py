"""The owner's policy: what this machine does for a federation, and what may leave it. A TOML file; docs/owners.md has its keys.

What the file doesn't speak of is allowed. A key that isn't known is refused with the whole file: a limit that is misspelt
must not be one that isn't there.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from client_agent.errors import BrokenPolicy
from client_agent.hours import Window

T = TypeVar("T")

TASKS = ("initialise", "train", "evaluate", "query")
STATISTICS = ("moments", "extremes", "histogram")
ERRORS = ("text", "type")
MACHINE = ("processor", "memory", "gpu", "disk", "network", "clock")
CARD = ("examples", "features", "labels")
DEFAULT_LABEL_FLOOR = 10


@dataclass(frozen=True, slots=True)
class AppRule:
    """An app that may work here; empty `versions` are all, an empty `sha256` is any code."""

    versions: tuple[str, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    epochs: int | None = None
    """Most of one round, all phases of the run's method together."""
    rounds_a_day: int | None = None
    cpus: int | None = None
    memory_mb: int | None = None
    config: Mapping[str, float] = field(default_factory=dict)
    """Most of any other value that the server may set."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a round must have for this client to train in it."""

    cohort: int = 0
    quorum: int = 0
    differential_privacy: bool = False
    secure_aggregation: bool = False


@dataclass(frozen=True, slots=True)
class CardRule:
    """What is published of an app's data."""

    publish: tuple[str, ...] = ()
    label_floor: int = DEFAULT_LABEL_FLOOR
    """Labels with fewer examples are left out, and counts are rounded down to its multiples: else what is left out could be told from
    the number of all examples."""


@dataclass(frozen=True, slots=True)
class Leave:
    """What may leave the machine; None: everything. Names may hold `*`."""

    metrics: tuple[str, ...] | None = None
    properties: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    statistics: tuple[str, ...] | None = None
    errors: str = "text"
    """Of an app that fails: its error's text, or only the type."""
    machine: tuple[str, ...] | None = None
    cards: Mapping[str, CardRule] = field(default_factory=dict)
    """By app, whose names may hold `*`; the data of others is not told of."""

    def card_rule(self, app: str) -> CardRule:
        return next((rule for pattern, rule in self.cards.items() if fnmatchcase(app, pattern)), CardRule())

    def allows_metric(self, name: str) -> bool:
        return matches(self.metrics, name)


NOTHING = Leave((), (), (), (), "type", ())
"""What may leave while nobody can tell what the owner wants."""


@dataclass(frozen=True, slots=True)
class Policy:
    """None: no rule."""

    federations: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    hours: tuple[Window, ...] | None = None
    timezone: tzinfo | None = None
    """Of the hours and of the day in which rounds are counted; None: the machine's."""
    apps: Mapping[str, AppRule] | None = None
    limits: Limits = Limits()
    require: Requirements = Requirements()
    leave: Leave = Leave()


def matches(patterns: Collection[str] | None, name: str) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def read(path: Path) -> Policy:
    """Raises `BrokenPolicy`."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenPolicy(path, ["There is no such file. Without one everything is allowed."]) from None
    except (OSError, ValueError) as error:
        raise BrokenPolicy(path, [f"It can't be read: {error}."]) from error
    problems: list[str] = []
    policy = _policy(_Table("", values, problems))
    if problems:
        raise BrokenPolicy(path, problems)
    return policy


def _policy(top: _Table) -> Policy:
    limits, require, leave = top.table("limits"), top.table("require"), top.table("leave")
    policy = Policy(
        federations=top.take("federations", _names, None),
        tasks=top.take("tasks", _names_of(TASKS), None),
        hours=top.take("hours", _windows, None),
        timezone=top.take("timezone", _timezone, None),
        apps=_apps(top),
        limits=Limits(
            epochs=limits.take("epochs", _whole, None),
            rounds_a_day=limits.take("rounds_a_day", _whole, None),
            cpus=limits.take("cpus", _whole, None),
            memory_mb=limits.take("memory_mb", _whole, None),
            config=limits.take("config", _numbers, {}),
        ),
        require=Requirements(
            cohort=require.take("cohort", _whole, 0),
            quorum=require.take("quorum", _whole, 0),
            differential_privacy=require.take("differential_privacy", _flag, False),
            secure_aggregation=require.take("secure_aggregation", _flag, False),
        ),
        leave=Leave(
            metrics=leave.take("metrics", _names, None),
            properties=leave.take("properties", _names, None),
            columns=leave.take("columns", _names, None),
            statistics=leave.take("statistics", _names_of(STATISTICS), None),
            errors=leave.take("errors", _one_of(ERRORS), "text"),
            machine=leave.take("machine", _names_of(MACHINE), None),
            cards=_cards(leave),
        ),
    )
    for table in (limits, require, leave, top):
        table.refuse_the_rest()
    return policy


def _apps(top: _Table) -> Mapping[str, AppRule] | None:
    tables = top.table("apps")
    if "apps" not in top.values:
        return None
    rules = {}
    for name in tables.values:
        app = tables.table(name)
        rules[name] = AppRule(app.take("versions", _names, ()), app.take("sha256", _sha256, ""))
        app.refuse_the_rest()
    return rules


def _cards(leave: _Table) -> Mapping[str, CardRule]:
    tables, rules = leave.table("cards"), {}
    for name in tables.values:
        card = tables.table(name)
        rules[name] = CardRule(
            card.take("publish", _names_of(CARD), ()), card.take("label_floor", _whole, DEFAULT_LABEL_FLOOR)
        )
        card.refuse_the_rest()
    return rules


class _Table:
    """A table of the file, taken key by key; problems are gathered, so that all are told at once."""

    def __init__(self, place: str, values: Mapping[str, Any], problems: list[str]) -> None:
        self.values = values
        self._place, self._problems = place, problems
        self._known: list[str] = []

    def take(self, key: str, convert: Callable[[Any], T], default: T) -> T:
        self._known.append(key)
        if key not in self.values:
            return default
        try:
            return convert(self.values[key])
        except (TypeError, ValueError) as error:
            self._problems.append(f"{self._place}{key}: {error}.")
            return default

    def table(self, key: str) -> _Table:
        return _Table(f"{self._place}{key}.", self.take(key, _mapping, {}), self._problems)

    def refuse_the_rest(self) -> None:
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(self._known))}."
                self._problems.append(f"{self._place}{key} is not known; {hint}")


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"a table is expected, not {value!r}")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f'a list of names is expected, for example ["one", "two"], not {value!r}')
    return tuple(value)


def _names_of(known: Collection[str]) -> Callable[[Any], tuple[str, ...]]:
    def convert(value: Any) -> tuple[str, ...]:
        return tuple(_one_of(known)(name) for name in _names(value))

    return convert


def _one_of(known: Collection[str]) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if value not in known:
            raise ValueError(f"{value!r} is none of {', '.join(known)}")
        return cast(str, value)

    return convert


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"a whole number from 1 on is expected, not {value!r}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"true or false is expected, not {value!r}")
    return value


def _numbers(value: Any) -> Mapping[str, float]:
    for name, number in _mapping(value).items():
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise TypeError(f"the most that {name!r} may be is a number, not {number!r}")
    return cast(Mapping[str, float], value)


def _sha256(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or set(value.lower()) - set("0123456789abcdef"):
        raise ValueError(f"64 hexadecimal digits are expected, as `fedagent policy digest` prints them, not {value!r}")
    return value.lower()


def _windows(value: Any) -> tuple[Window, ...]:
    return tuple(Window.parse(text) for text in (value if isinstance(value, list) else [value]))


def _timezone(value: Any) -> tzinfo:
    try:
        return ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError(f'{value!r} is no time zone known here; one is "Europe/Berlin"') from None
