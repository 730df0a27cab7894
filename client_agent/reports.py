"""What `fedagent status` tells."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from client_agent.certificates import certificate_of
from client_agent.identity import Home
from client_agent.pause import paused
from client_agent.state import AgentState
from client_agent.terminal import printable


def status(home: Home) -> dict[str, Any]:
    """Identity, dates and state, ready for JSON. Raises `NotEnrolled`."""
    identity = home.load()
    certificate = certificate_of(identity)
    return {
        **asdict(identity.enrolment),
        "certificate_valid_from": certificate.not_valid_before_utc.isoformat(),
        "paused": paused(home.pause_file),
        "agent": asdict(AgentState.read(home.state_file)),
    }


def as_text(report: dict[str, Any]) -> str:
    state = report["agent"]
    lines = {
        "client": f"{report['client_name']} ({report['client_id']})",
        "federation": report["federation"],
        "server": f"{report['server_url']}, gRPC {report['grpc_address']}",
        "certificate": f"from {report['certificate_valid_from']} to {report['certificate_expires_at']}",
        "agent": _agent_line(state),
        "paused": report["paused"] or "no",
        "last connected": state["last_connected_at"] or "never",
        "task": _task_line(state["task"]),
    }
    return "\n".join(f"{name + ':':16}{printable(value)}" for name, value in lines.items())


def _agent_line(state: dict[str, Any]) -> str:
    if state["pid"] is None:
        return "not running"
    if state["connected"]:
        idle = f", takes no tasks: {state['unavailable']}" if state["unavailable"] else ""
        return f"connected (process {state['pid']}){idle}"
    reason = f": {state['last_error']}" if state["last_error"] else ""
    return f"not connected (process {state['pid']}){reason}"


def _task_line(task: dict[str, Any] | None) -> str:
    return f"{task['kind']} of {task['app']}, round {task['round']}, since {task['since']}" if task else "none"
