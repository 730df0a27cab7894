"""What a server says gives no orders to the owner's terminal, wherever it is shown."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

import pytest

from client_agent import logs, reports
from client_agent.identity import Enrolment
from client_agent.state import AgentState

ORDER = "\x1b]0;owned\x07"


@pytest.fixture
def report() -> dict[str, Any]:
    enrolment = Enrolment("c-1", f"site-1{ORDER}", ORDER, "https://fedui.example.org", "fedui.example.org:1", "then")
    state = AgentState(pid=1, last_error=f"UNAVAILABLE: {ORDER}")
    return {**asdict(enrolment), "certificate_valid_from": "now", "paused": "", "agent": asdict(state)}


def test_in_the_status(report: dict[str, Any]) -> None:
    assert all(line.isprintable() for line in reports.as_text(report).splitlines())


def test_in_a_line_of_the_log() -> None:
    record = logging.LogRecord("agent", logging.INFO, "", 0, "Cancelled: %s", (f"größer\n{ORDER}",), None)
    shown = logs.TextFormatter().format(record)
    assert all(line.isprintable() for line in shown.splitlines())
    assert "größer\n" in shown
