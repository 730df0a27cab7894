"""The form of a strategy. Its fields come from the schema, and so do its errors, each shown beside the field it is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError as FieldError

from aggregator.core.config import StrategyConfig
from fedui.strategies.faults import BadStrategy, Fault, parse_config
from fedui.strategies.fields import ConfigField, sections_of

RESERVED = frozenset({"new"})


class StrategyForm(forms.Form):
    name = forms.SlugField(max_length=63)
    description = forms.CharField(max_length=240, required=False)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name in RESERVED:
            raise FieldError(f"“{name}” is an address of its own here. Choose another name.")
        return name


class ConfigForm:
    """A StrategyConfig as sections of fields. With `data` of a request, `config` is what it says, or None with errors."""

    def __init__(self, initial: StrategyConfig, data: Mapping[str, str] | None = None) -> None:
        self.initial = initial
        self.sections = list(sections_of(initial))
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
        return len(self.errors) + sum(section.error_count for section in self.sections)

    def _read(self, data: Mapping[str, str]) -> StrategyConfig | None:
        for item in self.fields:
            item.read(data)
        chosen = {item.name: item.value for item in self.fields if item.kind == "part"}
        for item in self.fields:
            item.shown = item.belongs_to(chosen)
        nested = self._nested()
        if self.error_count:
            return None
        try:
            return parse_config(nested)
        except BadStrategy as error:
            self._take(error.faults)
            return None

    def _nested(self) -> dict[str, Any]:
        """What the fields say, in the form of the configuration."""
        nested: dict[str, Any] = {}
        for item in filter(lambda item: item.shown, self.fields):
            *place, last = item.path
            level = nested
            for step in place:
                level = level.setdefault(step, {})
            try:
                level[last] = item.parsed()
            except FieldError as error:
                item.errors.extend(error.messages)
        return nested

    def _take(self, faults: list[Fault]) -> None:
        by_name = {item.name: item for item in self.fields}
        for fault in faults:
            item = _field_at(by_name, fault.loc)
            (item.errors if item else self.errors).append(fault.msg)


def _field_at(by_name: Mapping[str, ConfigField], loc: tuple[int | str, ...]) -> ConfigField | None:
    """The field that a place in the configuration belongs to: a pair's error is shown at the field of all pairs."""
    path = [str(part) for part in loc]
    names = (".".join(path[:length]) for length in range(len(path), 0, -1))
    return next((by_name[name] for name in names if name in by_name), None)
