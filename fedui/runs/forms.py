from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.db.models import Max, QuerySet

from fedui.catalog.models import App
from fedui.federations.models import Federation
from fedui.runs.models import MOST_DAYS, KeepCheckpoints, ModelVersion, Run, RunRules
from fedui.runs.orders import PlanForm
from fedui.strategies.models import StrategyVersion

MAX_SEED = 2**63 - 1
DEFAULT_ROUNDS = 20


class VersionField(forms.ModelChoiceField):  # type: ignore[type-arg]  # generic in its stubs only
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj} (latest)" if obj.number == obj.newest else str(obj)


class RunForm(PlanForm):
    """A new run. The choices are those of its federation, the newest version of each strategy first.

    With an `origin` it begins with that model, and trains its app. `clone_of` is the run that it repeats.
    """

    name = forms.CharField(max_length=120)
    app = forms.ModelChoiceField(App.objects.none(), empty_label=None)
    strategy_version = VersionField(StrategyVersion.objects.none(), empty_label=None)
    num_rounds = forms.IntegerField(min_value=1, max_value=100_000, initial=DEFAULT_ROUNDS)
    seed = forms.IntegerField(min_value=0, max_value=MAX_SEED, initial=1)
    origin = forms.ModelChoiceField(ModelVersion.objects.none(), required=False, widget=forms.HiddenInput)
    clone_of = forms.ModelChoiceField(Run.objects.none(), required=False, widget=forms.HiddenInput)
    key = forms.CharField(max_length=64, required=False, widget=forms.HiddenInput)

    def __init__(self, federation: Federation, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        versions = StrategyVersion.objects.filter(strategy__federation=federation)
        self._offer("origin", ModelVersion.objects.filter(run__federation=federation, removed_at=None))
        self._offer("clone_of", federation.runs.all())
        self.begins_with: ModelVersion | None = self.chosen("origin") if self["origin"].value() else None
        self._offer(
            "app", federation.apps.filter(pk=self.begins_with.run.app_id) if self.begins_with else federation.apps.all()
        )
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


class RunRulesForm(forms.ModelForm):  # type: ignore[type-arg]  # generic in its stubs only
    """How a federation runs and what it keeps; an empty field leaves it to the installation."""

    checkpoints = forms.ChoiceField(choices=[("", "As the installation"), *KeepCheckpoints.choices], required=False)
    progress_days = forms.IntegerField(min_value=0, max_value=MOST_DAYS, required=False)
    log_days = forms.IntegerField(min_value=0, max_value=MOST_DAYS, required=False)

    class Meta:
        model = RunRules
        fields = ("max_runs", "checkpoints", "checkpoints_every", "progress_days", "log_days")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("checkpoints") == KeepCheckpoints.EVERY and not cleaned.get("checkpoints_every"):
            self.add_error("checkpoints_every", "Say the n of every n-th: 1 or more.")
        return cleaned


def rules_help() -> dict[str, str]:
    """What an empty field means on this installation."""
    kept, every = settings.KEEP_CHECKPOINTS
    label = KeepCheckpoints(kept).label.lower()
    return {
        "max_runs": f"Empty: {settings.MAX_RUNS_PER_FEDERATION or 'no limit of its own'}. "
        f"All federations together: {settings.MAX_RUNS or 'no limit'}.",
        "checkpoints": f"Empty: {label}{f', n = {every}' if kept == KeepCheckpoints.EVERY else ''}.",
        "progress_days": f"How far each client was, after a run's end. Empty: {_days(settings.KEEP_PROGRESS_DAYS)}. 0: for ever.",
        "log_days": f"All events of a run, after its end. Empty: {_days(settings.KEEP_LOG_DAYS)}. 0: for ever.",
    }


def _days(days: int) -> str:
    return f"{days} days" if days else "for ever"
