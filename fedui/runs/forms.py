from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Max, QuerySet

from fedui.catalog.models import App
from fedui.federations.models import Federation
from fedui.strategies.models import StrategyVersion

MAX_SEED = 2**63 - 1
DEFAULT_ROUNDS = 20


class VersionField(forms.ModelChoiceField):  # type: ignore[type-arg]  # generic in its stubs only
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} (latest)" if obj.number == obj.newest else str(obj)


class RunForm(forms.Form):
    """A new run. The choices are those of its federation, the newest version of each strategy first."""

    name = forms.CharField(max_length=120)
    app = forms.ModelChoiceField(App.objects.none(), empty_label=None)
    strategy_version = VersionField(StrategyVersion.objects.none(), empty_label=None)
    num_rounds = forms.IntegerField(min_value=1, max_value=100_000, initial=DEFAULT_ROUNDS)
    seed = forms.IntegerField(min_value=0, max_value=MAX_SEED, initial=1)

    def __init__(self, federation: Federation, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        versions = StrategyVersion.objects.filter(strategy__federation=federation)
        self._offer("app", federation.apps.all())
        self._offer(
            "strategy_version",
            versions.select_related("strategy")
            .annotate(newest=Max("strategy__versions__number"))
            .order_by("strategy__name", "-number"),
        )

    def _offer(self, name: str, choices: QuerySet[Any]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = choices

    def chosen(self, name: str) -> Any:
        """What is selected in the field `name` now, the form being valid or not; None if there is nothing to select."""
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField) and field.queryset is not None
        value = self[name].value()
        try:
            return field.clean(value) if value else field.queryset.first()
        except forms.ValidationError:
            return None
