"""The parts that are known: the built-in ones, and those of installed packages."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Literal, TypeVar, get_args, get_origin

from aggregator.core import strategies
from aggregator.core.strategies.base import MethodConfig, OptimizerConfig, Part, RuleConfig

logger = logging.getLogger(__name__)

ENTRY_POINTS = "fedui.strategies"

P = TypeVar("P", bound=Part)


class BadPart(TypeError):
    """A registered part that can't be used; the text is for whoever installed it."""


@cache
def rules() -> dict[str, type[RuleConfig]]:
    """Aggregation rules by name."""
    return _parts(RuleConfig)


@cache
def optimizers() -> dict[str, type[OptimizerConfig]]:
    """Server optimisers by name."""
    return _parts(OptimizerConfig)


@cache
def methods() -> dict[str, type[MethodConfig]]:
    """Methods of training by name."""
    return _parts(MethodConfig)


def _parts(kind: type[P]) -> dict[str, type[P]]:
    found: dict[str, type[P]] = {}
    for part in [*_built_in(kind), *_installed(kind)]:
        name = part_name(part)
        if found.setdefault(name, part) is not part:
            raise BadPart(
                f"Two parts are named {name!r}: {found[name].__module__} and {part.__module__}. Uninstall one."
            )
    return dict(sorted(found.items()))


def part_name(part: type[Part]) -> str:
    """The one value of its field `name`. Raises `BadPart`."""
    field = part.model_fields.get("name")
    values = get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()
    if len(values) != 1 or not isinstance(values[0], str):
        raise BadPart(f'{part.__module__}.{part.__qualname__} needs a field `name: Literal["…"] = "…"`.')
    return values[0]


def _built_in(kind: type[P]) -> list[type[P]]:
    modules = [import_module(f"{strategies.__name__}.{m.name}") for m in iter_modules(strategies.__path__)]
    members = [member for module in modules for member in vars(module).values() if _is_part(member, kind)]
    return [part for part in dict.fromkeys(members) if part.__module__.startswith(strategies.__name__)]


def _is_part(member: object, kind: type[Part]) -> bool:
    return isinstance(member, type) and issubclass(member, kind) and "name" in member.model_fields


def _installed(kind: type[P]) -> list[type[P]]:
    """A package that can't be loaded is logged and left out: it must not keep the others from working."""
    found = []
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            part = entry_point.load()
        except Exception:
            logger.exception("The strategy %s of %s can't be loaded", entry_point.name, entry_point.value)
            continue
        if isinstance(part, type) and issubclass(part, kind):
            found.append(part)
    return found
