"""The filters of lists, as django-filter has them. A value that a filter can't take is an error."""

from __future__ import annotations

from django_filters import (
    BooleanFilter,
    CharFilter,
    ChoiceFilter,
    FilterSet,
    IsoDateTimeFilter,
    NumberFilter,
    UUIDFilter,
)

__all__ = [
    "BooleanFilter",
    "CharFilter",
    "ChoiceFilter",
    "Filters",
    "IsoDateTimeFilter",
    "NumberFilter",
    "UUIDFilter",
]


class Filters(FilterSet):
    """Of one list."""
