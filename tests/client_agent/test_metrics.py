"""The agent's metrics, for this machine alone."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from client_agent.errors import ConfigurationError
from client_agent.metrics import AgentMetrics, served
from client_agent.speed import Speed
from client_agent.state import AgentState
from protos.fedui.v1 import task_pb2


def test_what_is_told_and_to_whom() -> None:
    speed = Speed()
    speed.up = 1e6
    metrics = AgentMetrics(lambda: AgentState(connected=True), speed, lambda: "2026-11-26T12:00:00+00:00")
    for task_id in ("a", "a", "b"):
        metrics.working_on(task_pb2.Task(task_id=task_id, kind=task_pb2.TASK_KIND_FIT))
    metrics.working_on(None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with served(metrics, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        with pytest.raises(ConfigurationError, match="metrics can't be used"), served(metrics, port):
            pass
    assert "fedagent_connected 1.0" in text and 'fedagent_tasks_total{kind="fit"} 2.0' in text
    assert 'direction="up"} 1e+06' in text and "certificate_expires_timestamp_seconds 1.79" in text
    with served(metrics, 0):
        pass
