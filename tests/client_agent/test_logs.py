"""What the agent's log lines say they are about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from client_agent.logs import JsonFormatter
from client_agent.sdk import Arrays, Config, FitResult
from protos.fedui.v1 import task_pb2
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import Launch, ToyClient, toy_model


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    loggers = [logging.getLogger(name) for name in ("client_agent", "an_app")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler.stream
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_lines_say_which_client_run_round_and_task_they_are_about(
    server: ScriptedServer, launch: Launch, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the app's own code too, which trains in a thread."""
    fit = ToyClient.fit

    def talkative(self: ToyClient, parameters: Arrays, config: Config) -> FitResult:
        logging.getLogger("an_app").info("An epoch")
        return fit(self, parameters, config)

    monkeypatch.setattr(ToyClient, "fit", talkative)
    launch()
    for number in (1, 2):
        server.push_task(f"t{number}", task_pb2.TASK_KIND_FIT, toy_model(), round_number=number)
        assert (await server.result(f"t{number}")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    server.push_task("t3", task_pb2.TASK_KIND_FIT, toy_model(), config={"error": "no"}, round_number=3)
    await server.result("t3")

    lines: list[dict[str, Any]] = [json.loads(line) for line in written.getvalue().splitlines()]
    connected = next(line for line in lines if line["message"].startswith("Connected"))
    whose = {"client_id": connected["client_id"], "federation": "tests"}
    assert connected["client_id"]
    assert all(line.items() >= whose.items() for line in lines)
    assert "run_id" not in connected

    epochs = [line for line in lines if line["message"] == "An epoch"]
    assert [(line["run_id"], line["round"], line["task_id"]) for line in epochs] == [
        ("r", 1, "t1"), ("r", 2, "t2"), ("r", 3, "t3"),
    ]  # fmt: skip
    ends = [line for line in lines if line["message"].startswith("Round") and "fit: " in line["message"]]
    assert {(line["round"], line["task_id"]) for line in ends} == {(1, "t1"), (2, "t2"), (3, "t3")}
    failed = next(line for line in lines if line["level"] == "error")
    assert (failed["round"], failed["task_id"], "ArithmeticError" in failed["exception"]) == (3, "t3", True)
