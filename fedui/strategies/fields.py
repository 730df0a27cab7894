"""The fields of a strategy's form, made from the schema of its configuration: groups, types, limits, titles and help.

What a part adds, an installed package's included, is here by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from aggregator.core import plain_yaml
from aggregator.core.config import StrategyConfig
from aggregator.core.registry import part_name
from aggregator.core.strategies.base import Part
from fedui.web.forms import format_labels, parse_labels

_KINDS: dict[Any, str] = {
    bool: "switch", int: "number", float: "number", dict: "pairs", list: "list", tuple: "list", frozenset: "list"
}  # fmt: skip
_TITLES = {
    "local": "Local training",
    "method": "Unlike clients",
    "update": "Each update",
    "optimizer": "Server optimizer",
    "stopping": "Early stop",
    "faults": "Slow and lost clients",
}
_PARTS = {
    "mode": "Whether clients wait for one another.",
    "method": "How they train where their data differ. The app must serve it.",
    "aggregation": "How updates become one.",
    "optimizer": "How that becomes the next global model.",
}


@dataclass(slots=True)
class ConfigField:
    """One value of the configuration, as a control of the form. `name` is its path: `cohort.fraction`.

    Where the configuration holds one of several parts, `aggregation.name` chooses it (its `kind` is "part"), and each
    part's settings are fields of their own: those of `krum` are `aggregation.krum.malicious` and so on, with `option`
    ("aggregation.name", "krum").
    """

    name: str
    title: str
    kind: str
    value: Any
    integer: bool = False
    optional: bool = False
    help: str = ""
    typed: bool = False
    """Pairs whose values are more than text."""
    choices: tuple[tuple[str, str], ...] = ()
    option: tuple[str, str] | None = None
    shown: bool = True
    limits: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"id_{self.name.replace('.', '_')}"

    @property
    def range(self) -> str:
        """The limits in words; the browser isn't asked to hold them, so that every error reads alike."""
        words = [f"{word} {value:,.12g}" for word, value in self.limits.items()]
        return ", ".join(words).capitalize()

    @property
    def path(self) -> list[str]:
        """Where its value stands in the configuration: a part's own name is no level of that."""
        *place, last = self.name.split(".")
        return [*(place[:-1] if self.option else place), last]

    def belongs_to(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it counts, with these parts chosen."""
        return self.option is None or chosen.get(self.option[0]) == self.option[1]

    def read(self, data: Mapping[str, str]) -> None:
        self.value = self.name in data if self.kind == "switch" else data.get(self.name, "")

    def parsed(self) -> Any:
        """The value for pydantic to judge. Raises Django's `ValidationError` for pairs that are none."""
        if self.optional and self.value == "":
            return None
        if self.kind == "list":
            return [item for item in map(str.strip, self.value.split(",")) if item]
        if self.kind == "pairs":
            pairs = parse_labels(self.value)
            return {key: _scalar(value) for key, value in pairs.items()} if self.typed else pairs
        return self.value


@dataclass(slots=True)
class ConfigSection:
    title: str
    help: str
    fields: list[ConfigField]

    @property
    def error_count(self) -> int:
        return sum(len(field.errors) for field in self.fields)


def sections_of(config: StrategyConfig) -> Iterator[ConfigSection]:
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            title = _TITLES.get(name, name.capitalize())
            text = _PARTS.get(name) or (type(value).__doc__ or "").strip()
            yield ConfigSection(title, text, list(_fields(name, info, value)))


def _fields(name: str, info: FieldInfo, value: Any) -> Iterator[ConfigField]:
    """Those of one value: of each that a section holds, or of every part that could stand in its place."""
    if info.discriminator:
        yield from _of_parts(name, info, value)
    elif isinstance(value, BaseModel):
        for inner, inner_info in type(value).model_fields.items():
            yield from _fields(f"{name}.{inner}", inner_info, getattr(value, inner))
    else:
        yield _field(name, info, value)


def _of_parts(name: str, info: FieldInfo, value: Part) -> Iterator[ConfigField]:
    parts: dict[str, type[Part]] = {part_name(part): part for part in get_args(info.annotation)}
    select, chosen = f"{name}.name", part_name(type(value))
    choices = tuple(sorted(((key, part.title) for key, part in parts.items()), key=lambda choice: choice[1]))
    yield ConfigField(select, _title(name, info), "part", chosen, choices=choices)
    for key, part in parts.items():
        for inner, inner_info in part.model_fields.items():
            if inner != "name":
                setting = getattr(value, inner) if key == chosen else _default(inner_info)
                made = _field(f"{name}.{key}.{inner}", inner_info, setting)
                yield replace(made, option=(select, key), shown=key == chosen)


def _default(info: FieldInfo) -> Any:
    value = info.get_default(call_default_factory=True)
    return None if value is PydanticUndefined else value


def _field(name: str, info: FieldInfo, value: Any) -> ConfigField:
    title, text = _title(name, info), info.description or ""
    if get_origin(info.annotation) is Literal:
        choices = tuple((str(choice), str(choice)) for choice in get_args(info.annotation))
        return ConfigField(name, title, "choice", value, choices=choices, help=text)
    annotation = _without_none(info.annotation)
    kind = _KINDS.get(get_origin(annotation) or annotation or str, "text")
    return ConfigField(
        name,
        title,
        kind,
        _written(kind, value),
        integer=annotation is int,
        optional=annotation is not info.annotation,
        help=text,
        typed=kind == "pairs" and get_args(annotation)[1:] != (str,),
        limits=_limits(info),
    )


def _without_none(annotation: Any) -> Any:
    """`float` of `float | None`."""
    choices = get_args(annotation)
    return next(a for a in choices if a is not type(None)) if type(None) in choices else annotation


def _written(kind: str, value: Any) -> Any:
    """As it stands in the control; reading it back gives the same value, to the last digit."""
    if value is None:
        return ""
    if kind == "pairs":
        return format_labels({key: str(v).lower() if isinstance(v, bool) else v for key, v in value.items()})
    if kind == "list":
        return ", ".join(map(str, value))
    return repr(value).removesuffix(".0") if isinstance(value, float) else value


def _scalar(text: str) -> bool | int | float | str:
    """A value that the app is told: a number where it reads as one. As YAML, without its dates and nulls."""
    try:
        value = plain_yaml.read(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _title(name: str, info: FieldInfo) -> str:
    return info.title or name.rpartition(".")[2].replace("_", " ").capitalize()


def _limits(info: FieldInfo) -> dict[str, float]:
    words = {Gt: ("more than", "gt"), Ge: ("at least", "ge"), Lt: ("less than", "lt"), Le: ("at most", "le")}
    found = {}
    for constraint in info.metadata:
        if type(constraint) in words:
            word, attribute = words[type(constraint)]
            found[word] = float(getattr(constraint, attribute))
    return found
