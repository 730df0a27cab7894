from __future__ import annotations

from typing import Any

from django import forms
from pydantic import ValidationError

from aggregator.core.analytics import QueryConfig, Statistic
from fedui.analytics.columns import OpenColumn
from fedui.web.forms import LabelsField

STATISTICS = [
    (Statistic.COUNT, "Count"),
    (Statistic.SUM, "Sum"),
    (Statistic.MEAN, "Mean"),
    (Statistic.STD, "Standard deviation"),
    (Statistic.MIN, "Minimum"),
    (Statistic.MAX, "Maximum"),
    (Statistic.HISTOGRAM, "Histogram"),
    (Statistic.QUANTILES, "Quantiles"),
]
DEFAULTS = [Statistic.COUNT, Statistic.MEAN, Statistic.STD, Statistic.HISTOGRAM]
OPTIONAL = ("low", "high")


class QueryForm(forms.Form):
    """A new query. Its limits are those of `QueryConfig`, whose complaints are shown beside the fields."""

    column = forms.ChoiceField()
    statistics = forms.MultipleChoiceField(
        choices=[(statistic.value, label) for statistic, label in STATISTICS],
        widget=forms.CheckboxSelectMultiple,
        initial=[statistic.value for statistic in DEFAULTS],
        error_messages={"required": "Choose at least one."},
    )
    bins = forms.IntegerField(initial=20)
    low = forms.FloatField(required=False)
    high = forms.FloatField(required=False)
    quantiles = forms.CharField(max_length=200, initial="0.25, 0.5, 0.75")
    min_clients = forms.IntegerField(initial=2)
    labels = LabelsField(required=False, max_length=500)
    deadline_seconds = forms.FloatField(initial=60)

    def __init__(self, columns: list[OpenColumn], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._columns = {column.key: column for column in columns}
        field = self.fields["column"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(column.key, column.label) for column in columns]

    def clean_quantiles(self) -> list[float]:
        try:
            return [float(part) for part in self.cleaned_data["quantiles"].replace(";", ",").split(",")]
        except ValueError:
            raise forms.ValidationError(
                "Write shares between 0 and 1 with commas between them, as 0.5, 0.95."
            ) from None

    def clean(self) -> dict[str, Any]:
        values = {
            name: value
            for name, value in self.cleaned_data.items()
            if name != "column" and not (name in OPTIONAL and value is None)
        }
        if self.errors:
            return self.cleaned_data
        chosen = self._columns[self.cleaned_data["column"]]
        try:
            config = QueryConfig.model_validate(values | {"column": chosen.name})
        except ValidationError as error:
            for fault in error.errors():
                name = str(fault["loc"][0]) if fault["loc"] else "low"
                self.add_error(name, f"{fault['msg'].removeprefix('Value error, ')}.")
            return self.cleaned_data
        return self.cleaned_data | {"app": chosen.app, "config": config}
