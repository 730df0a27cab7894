"""All that a run's page needs to draw itself before it follows the events. Tables are told by columns: a name once, and its values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Max
from django.db.models.fields.json import KT

from fedui.runs import digests
from fedui.runs.digests import number_or_none, shortened
from fedui.runs.models import Participation, Round, Run
from fedui.runs.serialize import command_payload, run_payload, timestamp
from fedui.runs.thinning import MAX_POINTS, thinned

CHANGING = (
    "status", "reason", "rounds_done", "num_rounds", "started_at", "ended_at", "lease_expires_at", "pause_at_once", "priority",
    "start_at", "retries",
)  # fmt: skip
ROUND_FIELDS = (
    "number", "attempt", "status", "started_at", "closed_at", "committed_at", "ended_at", "expected", "received", "bytes_up", "bytes_down",
)  # fmt: skip
PARTICIPATION_FIELDS = (
    "round", "attempt", "client", "outcome", "reason", "replaces", "steps_done", "steps_planned", "bytes_up", "flagged", "flag_reason",
    "download_seconds", "train_seconds", "upload_seconds", "loss", "norm_ratio", "cosine_to_aggregate",
)  # fmt: skip
ONLY_LOOKED_AT = PARTICIPATION_FIELDS[-6:]
MODEL_FIELDS = ("round", "sha256", "size", "removed_at")
CLIENT_FIELDS = ("id", "name", "number")
DETAILED_ROUNDS = 60
"""Participations are told of at most this many rounds, the latest,"""
MOST_PARTICIPATIONS = 1_500
"""and of fewer where more clients took part; of the last round always."""
OLD_ROUNDS = 1_000
"""Of runs with more rounds than a screen can show, so many of the latest are told, and before them those that the curves show."""

Row = Sequence[Any]
Columns = dict[str, list[Any]]


def snapshot_of(run: Run) -> dict[str, Any]:
    """The run as it is now, and the number of an event from which on to follow.

    That number is read before everything else: the rest may be newer, and what happened between is told again by
    events, never missed. A page must take an event that it has the result of already.
    """
    last_seq = last_event(run)
    run.refresh_from_db(fields=CHANGING)
    digests.ensure(run)
    rounds = _rounds(run)
    curves = _curves(run)
    models = run.models.values_list("round_number", *MODEL_FIELDS[1:])
    return {
        "last_seq": last_seq,
        "run": run_payload(run),
        "rounds": _round_columns(rounds, {number for curve in curves for number in curve["rounds"]}),
        "curves": curves,
        "participations": _participations(rounds),
        "models": _columns(MODEL_FIELDS, models),
        "commands": [command_payload(command) for command in run.commands.all()],
        "clients": _columns(CLIENT_FIELDS, run.federation.clients.values_list(*CLIENT_FIELDS)),
    }


def last_event(run: Run) -> int:
    """Number of the last event stored; 0 before the first."""
    return run.events.aggregate(last=Max("seq"))["last"] or 0


def participations_payload(run: Run, until: int) -> dict[str, Any]:
    """Those of round `until` and before, for a page that looks back."""
    return {"participations": _participations(_rounds(run, number__lte=until, number__gt=until - DETAILED_ROUNDS))}


def _rounds(run: Run, **only: int) -> list[Row]:
    """Their ids, and values of `ROUND_FIELDS`."""
    return list(Round.objects.filter(run=run, **only).with_totals().values_list("pk", *ROUND_FIELDS))


def _participations(rounds: list[Row]) -> Columns:
    """Of the last of `rounds`, as many as are told at a time."""
    latest = max((number for _, number, *_ in rounds), default=0)
    chosen: list[int] = []
    room = MOST_PARTICIPATIONS
    for pk, number, *_, expected, _received, _up, _down in reversed(rounds):
        room -= expected
        if chosen and (room < 0 or number <= latest - DETAILED_ROUNDS):
            break
        chosen.append(pk)
    found = Participation.objects.filter(round__in=chosen)
    rows = found.order_by("round__number", "round__attempt", "client").values_list(
        "round__number", "round__attempt", *PARTICIPATION_FIELDS[2:14], KT("metrics__loss"), *PARTICIPATION_FIELDS[15:]
    )
    columns = _columns(PARTICIPATION_FIELDS, rows)
    columns["loss"] = [number_or_none(value) for value in columns["loss"]]
    return columns | {name: [shortened(value) for value in columns[name]] for name in ONLY_LOOKED_AT}


def _curves(run: Run) -> list[dict[str, Any]]:
    """Of more points than a screen has columns they are thinned; what stands out stays."""
    curves: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    for number, source, name, value in run.metrics.values_list("round_number", "source", "name", "value"):
        curves[source, name].append((number, value))
    return [
        {"source": source, "name": name} | _columns(("rounds", "values"), thinned(points, lambda point: point[1]))
        for (source, name), points in curves.items()
    ]


def _round_columns(rounds: list[Row], measured: set[int]) -> Columns:
    """Each knows the bytes of all rounds up to it."""
    total, shown = 0, []
    recent = len(rounds) - OLD_ROUNDS if len(rounds) > MAX_POINTS else 0
    for index, (_, *row) in enumerate(rounds):
        total += row[-1] + row[-2]
        if index >= recent or row[0] in measured:
            shown.append((*row, total))
    return _columns((*ROUND_FIELDS, "bytes_total"), shown)


def _columns(names: Sequence[str], rows: Iterable[Row]) -> Columns:
    values = zip(*rows, strict=True)
    return {name: [_told(value) for value in next(values, ())] for name in names}


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return timestamp(value)
    return str(value) if isinstance(value, UUID) else value
