"""What views take and give. Fields are listed one by one: nothing gets out by being added to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django import forms
from rest_framework import serializers
from rest_framework.serializers import BaseSerializer


class TolerantBody(serializers.Serializer[Any]):
    """What agents send: newer ones may say more than this server knows."""


class Body(TolerantBody):
    """What a call sends. A field that isn't known is an error: it would be a misspelt one."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping) and (unknown := sorted(set(map(str, data)) - set(self.fields))):
            known = ", ".join(self.fields) or "none"
            raise serializers.ValidationError({unknown[0][:60]: [f"There is no such field. Known are: {known}."]})
        return super().to_internal_value(data)


class Nothing(Body):
    """A call that says all by its address."""


@dataclass(frozen=True, slots=True)
class Gives:
    """What a method answers with: JSON by a serializer, nothing, or a stream of another kind."""

    serializer: type[BaseSerializer[Any]] | None = None
    status: int = 200
    many: bool = False
    """In pages."""
    sparse: bool = True
    """Whether `fields` chooses among its fields."""
    media_type: str = "application/json"
    description: str = ""
    also: Mapping[int, str] = field(default_factory=dict)
    """Further statuses, and what they mean."""


def messages_of(form: forms.BaseForm) -> dict[str, Any]:
    """What a form of the pages complains of, as an error of the API has it."""
    return {name: [str(word) for word in words] for name, words in form.errors.items()}


class LabelsField(serializers.DictField):
    """Labels of a client: short texts by short names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(child=serializers.CharField(min_length=1, max_length=63), **kwargs)

    def to_internal_value(self, data: Any) -> Any:
        labels = super().to_internal_value(data)
        if len(labels) > MAX_LABELS:
            raise serializers.ValidationError(f"At most {MAX_LABELS} labels.")
        for name in labels:
            if not 1 <= len(name) <= MAX_LABEL_NAME or any(c in ":," or not c.isprintable() for c in name):
                raise serializers.ValidationError(
                    f"A label's name has 1 to {MAX_LABEL_NAME} characters, no colon and no comma."
                )
        return labels


MAX_LABELS = 32
MAX_LABEL_NAME = 63
