from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from fedui.errors import DomainError
from fedui.federations.models import Federation
from fedui.registry.models import Stage
from fedui.registry.services import NAME_LENGTH, checked_name, checked_tags

NOTES_LENGTH = 4000


class TagsField(forms.CharField):
    """Tags with commas between them. Cleans to a list."""

    def __init__(self) -> None:
        super().__init__(required=False, max_length=1000)

    def clean(self, value: Any) -> Any:
        try:
            return checked_tags(super().clean(value).split(","))
        except DomainError as error:
            raise ValidationError(str(error)) from error


class DescribeForm(forms.Form):
    tags = TagsField()
    notes = forms.CharField(required=False, max_length=NOTES_LENGTH)


class PromoteForm(DescribeForm):
    name = forms.CharField(max_length=NAME_LENGTH)
    round = forms.IntegerField(min_value=0, max_value=2**31 - 1)

    def clean_name(self) -> str:
        try:
            return checked_name(self.cleaned_data["name"].strip())
        except DomainError as error:
            raise ValidationError(f"{error} {error.hint}") from error


class MoveForm(forms.Form):
    stage = forms.ChoiceField(choices=Stage.choices)
    note = forms.CharField(required=False, max_length=400)


class DescriptionForm(forms.Form):
    description = forms.CharField(required=False, max_length=NOTES_LENGTH)


def names_of(federation: Federation, most: int = 100) -> list[str]:
    """Names to choose from; others can be typed."""
    return list(federation.registered_models.values_list("name", flat=True)[:most])
