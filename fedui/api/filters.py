"""The filters of lists, as django-filter has them. A value that a filter can't take is an error."""

from __future__ import annotations

from django_filters import (
    BooleanFilter,
    CharFilter,
    ChoiceFilter,
    FilterSet,
    NumberFilter,
    UUIDFilter,
)
from django_filters import IsoDateTimeFilter as _IsoDateTimeFilter
from django_filters.fields import IsoDateTimeField

from fedui.web.forms import InUTC

__all__ = [
    "BooleanFilter",
    "CharFilter",
    "ChoiceFilter",
    "Filters",
    "IsoDateTimeFilter",
    "NumberFilter",
    "UUIDFilter",
]


class _MomentField(InUTC, IsoDateTimeField):
    pass


class IsoDateTimeFilter(_IsoDateTimeFilter):
    field_class = _MomentField


class Filters(FilterSet):
    """Of one list."""
