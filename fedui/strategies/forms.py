"""The form of a strategy, made from the schema of its configuration: groups, types, limits, titles and help all come from
`StrategyConfig`, and so do its errors, each shown beside the field it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from django import forms
from django.core.exceptions import ValidationError as FieldError
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from aggregator.core.config import StrategyConfig
from fedui.web.forms import format_labels, parse_labels

RESERVED = frozenset({"new"})

_KINDS: dict[Any, str] = {bool: "switch", int: "number", float: "number", dict: "pairs"}
_TITLES = {"local": "Local training", "faults": "Slow and lost clients"}
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
    """One value of the configuration, as a control of the form. `name` is its path: `cohort.fraction`."""

    name: str
    title: str
    kind: str
    value: Any
    integer: bool = False
    choices: tuple[str, ...] = ()
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
        self.config: StrategyConfig | None = initial
        if data is not None:
            self.config = self._read(data)

    @property
    def fields(self) -> Iterator[ConfigField]:
        return (field for section in self.sections for field in section.fields)

    @property
    def error_count(self) -> int:
        return len(self.errors) + sum(len(field.errors) for field in self.fields)

    def _read(self, data: Mapping[str, str]) -> StrategyConfig | None:
        nested: dict[str, Any] = {}
        for item in self.fields:
            item.value = data.get(item.name, "") if item.kind != "switch" else item.name in data
            *path, last = item.name.split(".")
            _reach(nested, path)[last] = self._parsed(item)
        if self.error_count:
            return None
        try:
            return StrategyConfig.model_validate(nested)
        except ValidationError as error:
            self._take(error)
            return None

    def _parsed(self, item: ConfigField) -> Any:
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
    general = [item for item in _fields(config, "") if item.choices]
    yield ConfigSection("Algorithm", "How updates become the next global model.", general)
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            title = _TITLES.get(name, name.capitalize())
            yield ConfigSection(title, (type(value).__doc__ or "").strip(), list(_fields(value, f"{name}.")))


def _fields(model: BaseModel, prefix: str) -> Iterator[ConfigField]:
    for name, info in type(model).model_fields.items():
        value = getattr(model, name)
        if not isinstance(value, BaseModel) and name != "schema_version":
            yield _field(f"{prefix}{name}", info, value)


def _field(name: str, info: FieldInfo, value: Any) -> ConfigField:
    title = info.title or name.rpartition(".")[2].replace("_", " ").capitalize()
    if get_origin(info.annotation) is Literal:
        return ConfigField(name, title, "choice", value, choices=get_args(info.annotation))
    kind = _KINDS.get(get_origin(info.annotation) or info.annotation or str, "text")
    shown = format_labels(value) if kind == "pairs" else f"{value:.12g}" if isinstance(value, float) else value
    return ConfigField(name, title, kind, shown, integer=info.annotation is int, limits=_limits(info))


def _limits(info: FieldInfo) -> dict[str, float]:
    words = {Gt: ("more than", "gt"), Ge: ("at least", "ge"), Lt: ("less than", "lt"), Le: ("at most", "le")}
    found = {}
    for constraint in info.metadata:
        if type(constraint) in words:
            word, attribute = words[type(constraint)]
            found[word] = float(getattr(constraint, attribute))
    return found
