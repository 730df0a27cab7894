"""All that a run's page needs to draw itself before it follows the events."""

from __future__ import annotations

from typing import Any

from django.db.models import Max

from fedui.clients.models import Client
from fedui.runs.models import Participation, Round, Run
from fedui.runs.serialize import (
    client_payload,
    command_payload,
    metric_payload,
    model_payload,
    participation_payload,
    round_payload,
    run_payload,
)

CHANGING = (
    "status", "reason", "rounds_done", "num_rounds", "started_at", "ended_at", "lease_expires_at", "pause_at_once", "priority",
    "start_at", "retries",
)  # fmt: skip
DETAILED_ROUNDS = 60
"""Participations are told of this many rounds, the latest."""


def snapshot_of(run: Run) -> dict[str, Any]:
    """The run as it is now, and the number of an event from which on to follow.

    That number is read before everything else: the rest may be newer, and what happened between is told again by
    events, never missed. A page must take an event that it has the result of already.
    """
    last_seq = last_event(run)
    run.refresh_from_db(fields=CHANGING)
    rounds = list(Round.objects.filter(run=run).with_totals())
    return {
        "last_seq": last_seq,
        "run": run_payload(run),
        "rounds": [round_payload(round_) for round_ in rounds],
        "metrics": [metric_payload(metric) for metric in run.metrics.all()],
        "participations": [participation_payload(one) for one in _recent_participations(run, rounds)],
        "models": [model_payload(model) for model in run.models.all()],
        "commands": [command_payload(command) for command in run.commands.all()],
        "clients": [client_payload(client) for client in Client.objects.filter(federation=run.federation_id)],
    }


def last_event(run: Run) -> int:
    """Number of the last event stored; 0 before the first."""
    return run.events.aggregate(last=Max("seq"))["last"] or 0


def _recent_participations(run: Run, rounds: list[Round]) -> list[Participation]:
    latest = max((round_.number for round_ in rounds), default=0)
    recent = Participation.objects.filter(round__run=run, round__number__gt=latest - DETAILED_ROUNDS)
    return list(recent.select_related("round").order_by("round__number", "round__attempt", "client"))
