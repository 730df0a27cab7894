"""Runs as JSON, for the API and the WebSocket. The shapes here are what the pages' scripts rely on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypedDict

from fedui.clients.models import Client
from fedui.runs.condition import Condition
from fedui.runs.models import Event, ModelVersion, Participation, Round, Run, RunCommand


class EventPayload(TypedDict):
    seq: int
    at: str
    kind: str
    level: str
    round: int | None
    client: str | None
    message: str
    data: dict[str, Any] | None
    """None: it was left out."""


def event_payload(event: Event) -> dict[str, Any]:
    """An event of a run, the same over the socket and from the API. Needs no query."""
    payload: EventPayload = {
        "seq": event.seq,
        "at": timestamp(event.at),
        "kind": event.kind,
        "level": event.level,
        "round": event.round_number,
        "client": str(event.client_id) if event.client_id else None,
        "message": event.message,
        "data": event.__dict__["data"] if "data" in event.__dict__ else event.__dict__["told"],
    }
    return dict(payload)


def run_payload(run: Run) -> dict[str, Any]:
    version = run.strategy_version
    return {
        "id": run.pk,
        "name": run.name,
        "federation": run.federation.slug,
        "status": run.status,
        "state": _state(run.condition),
        "reason": run.reason,
        "priority": run.priority,
        "start_at": _optional(run.start_at),
        "max_retries": run.max_retries,
        "origin": _origin(run.origin) if run.origin else None,
        "app": {"name": run.app.name, "version": run.app.version},
        "strategy": {"name": version.strategy.name, "version": version.number, "config": version.config},
        "seed": run.seed,
        "num_rounds": run.num_rounds,
        "rounds_done": run.rounds_done,
        "created_at": timestamp(run.created_at),
        "started_at": _optional(run.started_at),
        "ended_at": _optional(run.ended_at),
    }


def round_payload(round_: Round) -> dict[str, Any]:
    """A round from `Round.objects.with_totals()`."""
    return {
        "number": round_.number,
        "attempt": round_.attempt,
        "status": round_.status,
        "reason": round_.reason,
        "started_at": timestamp(round_.started_at),
        "closed_at": _optional(round_.closed_at),
        "committed_at": _optional(round_.committed_at),
        "ended_at": _optional(round_.ended_at),
        "expected": round_.expected,
        "received": round_.received,
        "bytes_up": round_.bytes_up,
        "bytes_down": round_.bytes_down,
    }


def participation_payload(participation: Participation) -> dict[str, Any]:
    """Needs `participation.round`."""
    return {
        "round": participation.round.number,
        "attempt": participation.round.attempt,
        "client": str(participation.client_id),
        "outcome": participation.outcome,
        "reason": participation.reason,
        "download_seconds": participation.download_seconds,
        "train_seconds": participation.train_seconds,
        "upload_seconds": participation.upload_seconds,
        "bytes_down": participation.bytes_down,
        "bytes_up": participation.bytes_up,
        "num_examples": participation.num_examples,
        "replaces": str(participation.replaces_id) if participation.replaces_id else None,
        "steps_done": participation.steps_done,
        "steps_planned": participation.steps_planned,
        "metrics": participation.metrics,
        "evaluation_loss": participation.evaluation_loss,
        "evaluation_num_examples": participation.evaluation_num_examples,
        "evaluation_metrics": participation.evaluation_metrics,
        "update_norm": participation.update_norm,
        "update_largest": participation.update_largest,
        "norm_ratio": participation.norm_ratio,
        "cosine_to_aggregate": participation.cosine_to_aggregate,
        "z_norm": participation.z_norm,
        "z_cosine": participation.z_cosine,
        "flagged": participation.flagged,
        "flag_reason": participation.flag_reason,
    }


def model_payload(model: ModelVersion) -> dict[str, Any]:
    return {
        "round": model.round_number,
        "sha256": model.sha256,
        "size": model.size,
        "removed_at": _optional(model.removed_at),
    }


def command_payload(command: RunCommand) -> dict[str, Any]:
    return {
        "id": command.pk,
        "kind": command.kind,
        "label": command.get_kind_display(),
        "actor": command.actor_name,
        "at": timestamp(command.at),
        "round": command.round_number,
        "data": command.data,
    }


def _state(condition: Condition) -> dict[str, str]:
    """What a reader should know of the run now; `status` is what its row says."""
    return {"kind": condition.kind, "label": condition.label, "detail": condition.detail, "text": condition.text}


def _origin(model: ModelVersion) -> dict[str, Any]:
    return {"run": model.run_id, "name": model.run.name, "round": model.round_number, "sha256": model.sha256}


def client_payload(client: Client) -> dict[str, Any]:
    return {"id": str(client.pk), "name": client.name, "number": client.number}


def timestamp(at: datetime) -> str:
    """`at` in UTC, to the millisecond: 2026-11-24T12:00:00.000Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _optional(at: datetime | None) -> str | None:
    return timestamp(at) if at else None
