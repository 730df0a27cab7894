"""Orders as they come, from a page's form or from the REST API: read, and given to `fedui.runs.commands`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django import forms

from fedui.runs import commands, weights
from fedui.runs.commands import Order
from fedui.runs.models import CommandKind, Priority, Run, RunCommand
from fedui.runs.services import MAX_NAME_LENGTH, MAX_RETRIES, MAX_ROUNDS, MAX_SEED, Plan, RunRefused
from fedui.strategies.models import StrategyVersion
from fedui.web.forms import MomentField


class NothingMore(forms.Form):
    """An order that says all by its kind."""


class PauseForm(forms.Form):
    at_once = forms.BooleanField(required=False)


class ScheduleForm(forms.Form):
    start_at = MomentField()


class PriorityForm(forms.Form):
    priority = forms.TypedChoiceField(choices=Priority, coerce=int)


class ExtendForm(forms.Form):
    num_rounds = forms.IntegerField(min_value=1, max_value=MAX_ROUNDS)


class PlanForm(forms.Form):
    """How a new run is to be carried out."""

    priority = forms.TypedChoiceField(
        choices=Priority, coerce=int, required=False, empty_value=None, initial=Priority.NORMAL
    )
    start_at = MomentField(required=False)
    max_retries = forms.IntegerField(min_value=0, max_value=MAX_RETRIES, required=False)

    def clean(self) -> dict[str, Any]:
        """With the `Plan` in place of its fields."""
        cleaned = dict(super().clean() or {})
        if self.errors:
            return cleaned
        plan = Plan(
            cleaned.pop("priority") or Priority.NORMAL, cleaned.pop("start_at"), cleaned.pop("max_retries") or 0
        )
        return cleaned | {"plan": plan}


class CloneForm(PlanForm):
    name = forms.CharField(max_length=MAX_NAME_LENGTH, required=False)


class ForkForm(CloneForm):
    round = forms.IntegerField(min_value=0)
    strategy_version = forms.IntegerField(min_value=1, max_value=2**62, required=False)
    num_rounds = forms.IntegerField(min_value=1, max_value=MAX_ROUNDS, required=False)
    seed = forms.IntegerField(min_value=0, max_value=MAX_SEED, required=False)


class WeighForm(forms.Form):
    client = forms.CharField(max_length=200, help_text="Its id, or its name.")
    percent = forms.IntegerField(min_value=0, max_value=100)
    why = forms.CharField(max_length=200, required=False)


def _fork(run: Run, order: Order, *, round: int, strategy_version: int | None, **values: Any) -> Run:  # noqa: A002  # as the API calls it
    version = None if strategy_version is None else _version_of(run, strategy_version)
    return commands.fork(run, order, round_number=round, strategy_version=version, **values)


def _version_of(run: Run, version_id: int) -> StrategyVersion:
    """Raises `RunRefused`, which tells nothing of the strategies of others."""
    own = StrategyVersion.objects.filter(strategy__federation=run.federation_id).select_related("strategy")
    if (version := own.filter(pk=version_id).first()) is None:
        raise RunRefused(
            "This federation has no such version of a strategy.",
            hint="Give the id of one of its own strategies’ versions.",
        )
    return version


def _weigh(run: Run, order: Order, *, client: str, **values: Any) -> RunCommand | None:
    return commands.weigh(run, order, client=weights.client_of(run, client), **values)


ORDERS: Mapping[CommandKind, tuple[type[forms.Form], Callable[..., Any]]] = {
    CommandKind.START: (NothingMore, commands.start),
    CommandKind.SCHEDULE: (ScheduleForm, commands.schedule),
    CommandKind.PRIORITISE: (PriorityForm, commands.prioritise),
    CommandKind.PAUSE: (PauseForm, commands.pause),
    CommandKind.RESUME: (NothingMore, commands.resume),
    CommandKind.STOP: (NothingMore, commands.stop),
    CommandKind.CANCEL: (NothingMore, commands.cancel),
    CommandKind.EXTEND: (ExtendForm, commands.extend),
    CommandKind.CLONE: (CloneForm, commands.clone),
    CommandKind.FORK: (ForkForm, _fork),
    CommandKind.WEIGH: (WeighForm, _weigh),
}


class BadOrder(Exception):
    """`errors` says what is wrong, by field."""

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__("; ".join(f"{field}: {' '.join(words)}" for field, words in errors.items()))
        self.errors = errors


def obey(run: Run, order: Order, kind: CommandKind, data: Mapping[str, Any]) -> Run | None:
    """The run that was made, if the order makes one. Raises `BadOrder` and what the commands raise."""
    form_type, command = ORDERS[kind]
    form = form_type(data)
    if not form.is_valid():
        raise BadOrder({field: [str(word) for word in words] for field, words in form.errors.items()})
    made = command(run, order, **form.cleaned_data)
    return made if isinstance(made, Run) else None
