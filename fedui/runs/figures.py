"""Runs with the figures that lists show of them: the best-trusted accuracy and loss, and the curve."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

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
