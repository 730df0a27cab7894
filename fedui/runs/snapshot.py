"""All that a run's page needs to draw itself before it follows the events."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.db.models import Max

from fedui.runs import digests
from fedui.runs.models import Metric, Participation, Round, Run
from fedui.runs.serialize import (
    client_payload,
    command_payload,
    metric_payload,
    model_payload,
    participation_payload,
    round_payload,
    run_payload,
)
from fedui.runs.thinning import MAX_POINTS, thinned

CHANGING = (
    "status", "reason", "rounds_done", "num_rounds", "started_at", "ended_at", "lease_expires_at", "pause_at_once", "priority",
    "start_at", "retries",
)  # fmt: skip
MODEL_FIELDS = ("run", "round_number", "sha256", "size", "removed_at")
METRIC_FIELDS = ("run", "round_number", "source", "name", "value", "num_examples")
DETAILED_ROUNDS = 60
"""Participations are told of at most this many rounds, the latest,"""
MOST_PARTICIPATIONS = 1_500
"""and of fewer where more clients took part; of the last round always."""
OLD_ROUNDS = 1_000
"""Of runs with more rounds than a screen can show, so many of the latest are told, and before them those that the curves show."""


def snapshot_of(run: Run) -> dict[str, Any]:
    """The run as it is now, and the number of an event from which on to follow.

    That number is read before everything else: the rest may be newer, and what happened between is told again by
    events, never missed. A page must take an event that it has the result of already.
    """
    last_seq = last_event(run)
    run.refresh_from_db(fields=CHANGING)
    digests.ensure(run)
    rounds = list(Round.objects.filter(run=run).with_totals())
    metrics = _shown_metrics(run)
    return {
        "last_seq": last_seq,
        "run": run_payload(run),
        "rounds": _shown_rounds(rounds, {metric.round_number for metric in metrics}),
        "metrics": [metric_payload(metric) for metric in metrics],
        "participations": [participation_payload(one) for one in _participations(rounds)],
        "models": [model_payload(model) for model in run.models.only(*MODEL_FIELDS)],
        "commands": [command_payload(command) for command in run.commands.all()],
        "clients": [client_payload(client) for client in run.federation.clients.only("federation", "name", "number")],
    }


def last_event(run: Run) -> int:
    """Number of the last event stored; 0 before the first."""
    return run.events.aggregate(last=Max("seq"))["last"] or 0


def participations_payload(run: Run, until: int) -> dict[str, Any]:
    """Those of round `until` and before, for a page that looks back."""
    rounds = list(Round.objects.filter(run=run, number__lte=until, number__gt=until - DETAILED_ROUNDS).with_totals())
    return {"participations": [participation_payload(one) for one in _participations(rounds)]}


def _participations(rounds: list[Round]) -> list[Participation]:
    """Of the last of `rounds`, as many as are told at a time."""
    latest = max((round_.number for round_ in rounds), default=0)
    chosen: list[int] = []
    room = MOST_PARTICIPATIONS
    for round_ in reversed(rounds):
        room -= round_.expected
        if chosen and (room < 0 or round_.number <= latest - DETAILED_ROUNDS):
            break
        chosen.append(round_.pk)
    found = Participation.objects.filter(round__in=chosen).select_related("round")
    return list(found.order_by("round__number", "round__attempt", "client"))


def _shown_metrics(run: Run) -> list[Metric]:
    """Curves of more points than a screen has columns are thinned; what stands out stays."""
    curves: dict[tuple[str, str], list[Metric]] = defaultdict(list)
    for metric in run.metrics.only(*METRIC_FIELDS):
        curves[metric.source, metric.name].append(metric)
    shown = [metric for curve in curves.values() for metric in thinned(curve, lambda one: one.value)]
    return sorted(shown, key=lambda one: (one.round_number, one.source, one.name))


def _shown_rounds(rounds: list[Round], measured: set[int]) -> list[dict[str, Any]]:
    """Each knows the bytes of all rounds up to it."""
    total, shown = 0, []
    recent = len(rounds) - OLD_ROUNDS if len(rounds) > MAX_POINTS else 0
    for index, round_ in enumerate(rounds):
        total += round_.bytes_up + round_.bytes_down
        if index >= recent or round_.number in measured:
            shown.append(round_payload(round_) | {"bytes_total": total})
    return shown
