"""The form of a strategy, made from the schema of its configuration: groups, types, limits, titles and help all come from
`StrategyConfig`, and so do its errors, each shown beside the field it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from django import forms
from django.core.exceptions import ValidationError as FieldError
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from aggregator.core.config import StrategyConfig
from aggregator.core.registry import part_name
from aggregator.core.strategies.base import Part
from fedui.web.forms import format_labels, parse_labels

RESERVED = frozenset({"new"})

_KINDS: dict[Any, str] = {bool: "switch", int: "number", float: "number", dict: "pairs"}
_TITLES = {
    "local": "Local training",
    "update": "Each update",
    "optimizer": "Server optimizer",
    "stopping": "Early stop",
    "faults": "Slow and lost clients",
}
_READ_AS = {"int_parsing": "Write a whole number.", "float_parsing": "Write a number.", "missing": "Write a value."}


class StrategyForm(forms.Form):
    name = forms.SlugField(max_length=63)
    description = forms.CharField(max_length=240, required=False)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name in RESERVED:
            raise FieldError(f"“{name}” is an address of its own here. Choose another name.")
        return name


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
    choices: tuple[tuple[str, str], ...] = ()
    option: tuple[str, str] | None = None
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

    def belongs_to(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it counts, with these parts chosen."""
        return self.option is None or chosen.get(self.option[0]) == self.option[1]


@dataclass(slots=True)
class ConfigSection:
    title: str
    help: str
    fields: list[ConfigField]


class ConfigForm:
    """A StrategyConfig as sections of fields. With `data` of a request, `config` is what it says, or None with errors."""

    def __init__(self, initial: StrategyConfig, data: Mapping[str, str] | None = None) -> None:
        self.sections = list(_sections(initial))
        self.errors: list[str] = []
        """Those that are about several fields at once."""
        self.yaml_error = ""
        self.config: StrategyConfig | None = initial
        if data is not None:
            self.config = self._read(data)

    @property
    def fields(self) -> Iterator[ConfigField]:
        return (field for section in self.sections for field in section.fields)

    @property
    def error_count(self) -> int:
        return len(self.errors) + sum(len(field.errors) for field in self.fields)

    @classmethod
    def from_yaml(cls, text: str, fallback: StrategyConfig) -> ConfigForm:
        """The form of what `text` says; of `fallback`, with `yaml_error`, if that is no strategy."""
        try:
            return cls(StrategyConfig.from_yaml(text))
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'strategy'}: {e['msg']}" for e in error.errors())
        except ValueError as error:
            reason = str(error)
        form = cls(fallback)
        form.yaml_error = reason
        return form

    def _read(self, data: Mapping[str, str]) -> StrategyConfig | None:
        nested: dict[str, Any] = {}
        for item in self.fields:
            item.value = data.get(item.name, "") if item.kind != "switch" else item.name in data
        chosen = {item.name: item.value for item in self.fields if item.kind == "part"}
        for item in self.fields:
            if item.belongs_to(chosen):
                path = item.name.split(".")
                if item.option:
                    path.pop(-2)  # a part's own name is no level of the configuration
                _reach(nested, path[:-1])[path[-1]] = self._parsed(item)
        if self.error_count:
            return None
        try:
            return StrategyConfig.model_validate(nested)
        except ValidationError as error:
            self._take(error)
            return None

    def _parsed(self, item: ConfigField) -> Any:
        if item.optional and item.value == "":
            return None
        if item.kind != "pairs":
            return item.value
        try:
            return parse_labels(item.value)
        except FieldError as error:
            item.errors.extend(error.messages)
            return {}

    def _take(self, error: ValidationError) -> None:
        by_name = {item.name: item for item in self.fields}
        for detail in error.errors():
            item = _field_at(by_name, detail["loc"])
            text = _READ_AS.get(
                detail["type"], detail["msg"].removeprefix("Value error, ").replace("Input should be", "Must be")
            )
            (item.errors if item else self.errors).append(text)


def _field_at(by_name: Mapping[str, ConfigField], loc: tuple[int | str, ...]) -> ConfigField | None:
    """The field that a place in the configuration belongs to: a pair's error is shown at the field of all pairs."""
    path = [str(part) for part in loc]
    names = (".".join(path[:length]) for length in range(len(path), 0, -1))
    return next((by_name[name] for name in names if name in by_name), None)


def _reach(nested: dict[str, Any], path: list[str]) -> dict[str, Any]:
    for part in path:
        nested = nested.setdefault(part, {})
    return nested


def _sections(config: StrategyConfig) -> Iterator[ConfigSection]:
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            title = _TITLES.get(name, name.capitalize())
            yield ConfigSection(title, _help_of(name, value), list(_of_value(name, info, value)))


def _help_of(name: str, value: BaseModel) -> str:
    """A section's docstring; one that is a part says what kind of part it is instead."""
    kinds = {"aggregation": "How updates become one.", "optimizer": "How that becomes the next global model."}
    return kinds.get(name) or (type(value).__doc__ or "").strip()


def _of_value(name: str, info: FieldInfo, value: Any) -> Iterator[ConfigField]:
    """The fields of one value: of each that a section holds, or of every part that could stand in its place."""
    if info.discriminator:
        yield from _of_parts(name, info, value)
    elif isinstance(value, BaseModel):
        for inner, inner_info in type(value).model_fields.items():
            yield from _of_value(f"{name}.{inner}", inner_info, getattr(value, inner))
    else:
        yield _field(name, info, value)


def _of_parts(name: str, info: FieldInfo, value: Part) -> Iterator[ConfigField]:
    parts: dict[str, type[Part]] = {part_name(part): part for part in get_args(info.annotation)}
    select = f"{name}.name"
    chosen = part_name(type(value))
    choices = tuple(sorted(((key, part.title) for key, part in parts.items()), key=lambda choice: choice[1]))
    yield ConfigField(select, _title(name, info), "part", chosen, choices=choices)
    for key, part in parts.items():
        for inner, inner_info in part.model_fields.items():
            if inner != "name":
                setting = getattr(value, inner) if key == chosen else inner_info.get_default(call_default_factory=True)
                known = None if setting is PydanticUndefined else setting
                yield replace(_field(f"{name}.{key}.{inner}", inner_info, known), option=(select, key))


def _field(name: str, info: FieldInfo, value: Any) -> ConfigField:
    title, text = _title(name, info), info.description or ""
    if get_origin(info.annotation) is Literal:
        choices = tuple((str(choice), str(choice)) for choice in get_args(info.annotation))
        return ConfigField(name, title, "choice", value, choices=choices, help=text)
    optional = type(None) in get_args(info.annotation)
    annotation = (
        next((a for a in get_args(info.annotation) if a is not type(None)), None) if optional else info.annotation
    )
    kind = _KINDS.get(get_origin(annotation) or annotation or str, "text")
    shown = format_labels(value) if kind == "pairs" else f"{value:.12g}" if isinstance(value, float) else value
    return ConfigField(
        name,
        title,
        kind,
        "" if shown is None else shown,
        integer=annotation is int,
        optional=optional,
        help=text,
        limits=_limits(info),
    )


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
