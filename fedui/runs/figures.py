"""Runs with the figures that lists show of them: the best-trusted accuracy and loss, and the curve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from django.db.models import ExpressionWrapper, F, OuterRef, QuerySet, Subquery, Value
from django.db.models.expressions import Expression, OrderBy
from django.db.models.fields import DurationField
from django.db.models.functions import Coalesce
from django.utils import timezone

from fedui.runs.condition import prefill
from fedui.runs.models import Metric, MetricSource, Run

SHOWN = ("accuracy", "loss")
MOST_TRUSTED_FIRST = (MetricSource.SERVER, MetricSource.FEDERATED, MetricSource.FIT)
CURVE_POINTS = 60


@dataclass(slots=True)
class RunFigures:
    run: Run
    accuracy: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)

    @property
    def curve(self) -> list[float]:
        return (self.accuracy or self.loss)[-CURVE_POINTS:]

    @property
    def last_accuracy(self) -> float | None:
        return self.accuracy[-1] if self.accuracy else None

    @property
    def best_accuracy(self) -> float | None:
        return max(self.accuracy, default=None)

    @property
    def last_loss(self) -> float | None:
        return self.loss[-1] if self.loss else None


def _first(name: str, order: str) -> Expression | F:
    """Of a run's figures of the best-trusted source the first in this order."""
    values = Metric.objects.filter(run=OuterRef("pk"), name=name).order_by(order).values("value")
    return Coalesce(*(Subquery(values.filter(source=source)[:1]) for source in MOST_TRUSTED_FIRST))


def _duration() -> Expression | F:
    end = Coalesce("ended_at", Value(timezone.now()))
    return ExpressionWrapper(end - F("started_at"), output_field=DurationField())


SORTS: Mapping[str, Callable[[], Expression | F]] = {
    "name": lambda: F("name"),
    "round": lambda: F("rounds_done"),
    "accuracy": lambda: _first("accuracy", "-value"),
    "loss": lambda: _first("loss", "-round_number"),
    "duration": _duration,
    "created": lambda: F("created_at"),
}
"""Columns of the list of runs that it can be sorted by."""


def in_order(runs: QuerySet[Run], sort: str) -> QuerySet[Run]:
    """Runs by one of `SORTS`, downward with a hyphen before its name; those without the figure come last."""
    key = SORTS[sort.removeprefix("-")]()
    return runs.order_by(OrderBy(key, descending=sort.startswith("-"), nulls_last=True), "-pk")


def with_figures(runs: Iterable[Run]) -> list[RunFigures]:
    """A few queries for all of them; each run knows its condition then."""
    figures = {run.pk: RunFigures(run) for run in runs}
    prefill(figure.run for figure in figures.values())
    values: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    metrics = Metric.objects.filter(run__in=figures, name__in=SHOWN).order_by("run", "round_number")
    for run_id, name, source, value in metrics.values_list("run", "name", "source", "value"):
        values[run_id, name, source].append(value)
    for run_id, shown in figures.items():
        shown.accuracy, shown.loss = (_best_source(values, run_id, name) for name in SHOWN)
    return list(figures.values())


def _best_source(values: dict[tuple[int, str, str], list[float]], run_id: int, name: str) -> list[float]:
    curves = (values.get((run_id, name, source), []) for source in MOST_TRUSTED_FIRST)
    return next(filter(None, curves), [])
