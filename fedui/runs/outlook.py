"""The forecast of a run, from its rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fedui.runs import forecast
from fedui.runs.forecast import NoForecast
from fedui.runs.models import DRIVEN, RoundStatus, Run
from fedui.web.figures import is_lower_better, is_share

MOST_POINTS = 4_000


def outlook_payload(run: Run, metric: str, source: str, target: float | None) -> dict[str, Any]:
    """`end` and `curve` are forecasts; where there is none, `end_refusal` and `curve_refusal` say why."""
    body: dict[str, Any] = {"metric": metric, "source": source, "target": target}
    return body | _end(run) | _curve(run, metric, source, target)


def _end(run: Run) -> dict[str, Any]:
    if run.status not in DRIVEN:
        return {"end": None, "end_refusal": f"The run is {run.status}."}
    committed = run.rounds.filter(status=RoundStatus.COMMITTED).order_by("-number")
    starts = sorted(committed.values_list("started_at", flat=True)[: forecast.PACE_ROUNDS + 1])
    gaps = [(after - before).total_seconds() for before, after in pairwise(starts)]
    try:
        return {"end": forecast.time_left(gaps, run.num_rounds - run.rounds_done).payload(), "end_refusal": ""}
    except NoForecast as reason:
        return {"end": None, "end_refusal": str(reason)}


def _curve(run: Run, metric: str, source: str, target: float | None) -> dict[str, Any]:
    none: dict[str, Any] = {"curve": [], "reached": None}
    if run.status not in DRIVEN:
        return none | {"curve_refusal": f"The run is {run.status}."}
    measured = run.metrics.filter(name=metric, source=source, round_number__gt=0).order_by("-round_number")
    points = sorted(measured.values_list("round_number", "value")[:MOST_POINTS])
    try:
        curve = forecast.curve_to(points, run.num_rounds, share=is_share(metric))
    except NoForecast as reason:
        return none | {"curve_refusal": str(reason)}
    lower = is_lower_better(metric)
    reached = None if target is None else forecast.reached_at(curve, target, lower_is_better=lower)
    return {"curve": forecast.payload(curve), "reached": reached, "curve_refusal": ""}
