"""What several forms share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from fedui.errors import DomainError


def explain(form: forms.BaseForm, error: DomainError) -> None:
    """Show a domain error above the form's fields, with what to do about it."""
    form.add_error(None, f"{error} {error.hint}".strip())


class InUTC(forms.Field):
    """Before a field of moments: at the ends of the calendar there are some that are none in UTC, and that no database gives back."""

    def to_python(self, value: Any) -> Any:
        moment = super().to_python(value)
        try:
            return moment.astimezone(UTC) if moment else moment
        except OverflowError as error:
            raise ValidationError("Choose a time within the years 1 to 9999, in UTC.", code="invalid") from error


class MomentField(InUTC, forms.DateTimeField):
    """A time of a day."""


class LabelsField(forms.CharField):
    """Labels as people write them: `region:north, modality:ecg`. Cleans to a dict."""

    def to_python(self, value: Any) -> dict[str, str]:  # type: ignore[override]
        text = super().to_python(value)
        return parse_labels(text or "")

    def prepare_value(self, value: Any) -> Any:
        return format_labels(value) if isinstance(value, Mapping) else value


def parse_labels(text: str) -> dict[str, str]:
    labels = {}
    for part in filter(None, (piece.strip() for piece in text.replace("\n", ",").split(","))):
        key, separator, value = part.partition(":")
        if not (separator and key.strip() and value.strip()):
            raise ValidationError(f"“{part}” is not a label: write key:value, with commas between labels.")
        labels[key.strip()] = value.strip()
    return labels


def format_labels(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}:{value}" for key, value in labels.items())


class ConfirmForm(forms.Form):
    """A destructive act takes the name of what it ends, typed."""

    confirm = forms.CharField()

    def __init__(self, expected: str, data: Mapping[str, Any]) -> None:
        super().__init__(data)
        self.expected = expected

    def clean_confirm(self) -> str:
        typed: str = self.cleaned_data["confirm"].strip()
        if typed != self.expected:
            raise ValidationError(f"Type {self.expected} to confirm.")
        return typed
