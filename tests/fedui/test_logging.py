"""What is logged, and what never is."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from celery.signals import task_postrun, task_prerun
from django.test import Client as Browser

from aggregator import log_context
from fedui.accounts.models import User
from fedui.clients.tokens import TokenText
from fedui.federations.models import Federation
from fedui.logging import RedactingFormatter, logging_config, without_secrets

TEXT = TokenText.new("f" * 43)


@pytest.fixture
def logged(log_format: str) -> Iterator[io.StringIO]:
    """What the console would show of the logger `fedui`, alone: pytest has the root."""
    formatter = logging_config(log_format=log_format, level="INFO")["formatters"]["default"]
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(RedactingFormatter(**{key: value for key, value in formatter.items() if key != "()"}))
    logger = logging.getLogger("fedui")
    logger.addHandler(handler)
    yield handler.stream
    logger.removeHandler(handler)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_one_line_an_entry_with_its_fields(log_format: str, logged: io.StringIO) -> None:
    structlog.get_logger("fedui.runs").warning("Round committed", run_id=7)
    logging.getLogger("fedui.engine").warning("Slow", extra={"run_id": 7})

    first, second = logged.getvalue().splitlines()
    for line, event in ((first, "Round committed"), (second, "Slow")):
        assert event in line
        assert json.loads(line)["run_id"] == 7 if log_format == "json" else "run_id=7" in line


def test_the_level_holds_for_the_loggers_of_libraries_too() -> None:
    program = """
import django; django.setup()
import logging
for name in ("fedui", "django.request", "uvicorn.error"):
    logging.getLogger(name).warning("quiet %s", name)
    logging.getLogger(name).error("loud %s", name)
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "fedui.settings", "FEDUI_LOG_LEVEL": "error"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert [line.count("loud") for line in said.stderr.splitlines()] == [1, 1, 1]

    environment["FEDUI_LOG_LEVEL"] = "loud"
    refused = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert "FEDUI_LOG_LEVEL is 'LOUD': it must be one of DEBUG" in refused.stderr


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_secret_of_a_token_is_in_no_line(logged: io.StringIO) -> None:
    logger = logging.getLogger("fedui.clients")
    logger.warning("Token %s", TEXT)
    logger.warning("Token", extra={"token": str(TEXT)})
    try:
        raise ValueError(f"Not a token: {TEXT}")
    except ValueError:
        logger.exception("Refused")

    assert TEXT.secret not in logged.getvalue()
    assert logged.getvalue().count(f"fle_{TEXT.key_id}") >= 3


@pytest.mark.parametrize("log_format", ["json"])
async def test_tasks_of_the_engine_say_what_they_are_about(logged: io.StringIO) -> None:
    """Of runs side by side each its own, in what it begins too."""

    async def drive(run_id: int) -> None:
        log_context.bind(run_id=run_id)
        await asyncio.sleep(0)
        log_context.bind(round=run_id + 1)
        await asyncio.create_task(tell())

    async def tell() -> None:
        logging.getLogger("fedui.engine").warning("Slow", extra={"client_id": "elm"})

    await asyncio.gather(*(asyncio.create_task(drive(run_id)) for run_id in range(5)))
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert {(line["run_id"], line["round"], line["client_id"]) for line in lines} == {
        (n, n + 1, "elm") for n in range(5)
    }


@pytest.mark.django_db
@pytest.mark.parametrize("log_format", ["json"])
def test_requests_and_tasks_say_what_they_are_about(logged: io.StringIO, owner: User, federation: Federation) -> None:
    requests = logging.getLogger("django.request")
    requests.addHandler(logging.getLogger("fedui").handlers[-1])
    try:
        browser = Browser()
        browser.force_login(owner)
        for sent in ("from-the-proxy", "no\tid"):
            answer = browser.get(f"/f/{federation.slug}/runs/77/", headers={"X-Request-ID": sent})
            line = json.loads(logged.getvalue().splitlines()[-1])
            assert (line["run_id"], line["federation"]) == ("77", federation.slug)
            assert line["request_id"] == answer["X-Request-ID"] and (line["request_id"] == sent) is ("-" in sent)
    finally:
        requests.handlers.pop()

    class Task:
        name = "aggregation.host_run"

    task_prerun.send(sender=Task, task_id="t", task=Task, args=(5,))
    logging.getLogger("fedui").warning("At work")
    task_postrun.send(sender=Task, task_id="t", task=Task, state="SUCCESS")
    logging.getLogger("fedui").warning("At rest")
    work, rest = (json.loads(line) for line in logged.getvalue().splitlines()[-2:])
    assert (work["run_id"], work["task"], work["task_id"]) == (5, "aggregation.host_run", "t")
    assert not rest.keys() & {"run_id", "task", "request_id", "federation"}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_planted_secrets_are_in_no_line(logged: io.StringIO) -> None:
    planted = ["fedk_abcdefghij_" + "S" * 49, "whsec_" + "T" * 40 + "+/=", "Bearer " + "U" * 30]
    for text in planted:
        logging.getLogger("fedui").warning("Sent %s", text, extra={"headers": {"Authorization": text}})
    try:
        password = "V" * 12
        raise ValueError(len(password))
    except ValueError:
        logging.getLogger("fedui").exception("Broken")
    assert not [secret for secret in ("SSS", "TTT", "UUU", "VVV") if secret in logged.getvalue()]
    assert "fedk_abcdefghij" in logged.getvalue()


def test_the_part_that_names_a_token_stays() -> None:
    assert without_secrets(f"used {TEXT}, thanks") == f"used fle_{TEXT.key_id}.…, thanks"


def test_a_token_hides_its_secret_in_reprs() -> None:
    assert TEXT.secret not in repr(TEXT)
