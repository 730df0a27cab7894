"""What is logged, and what never is."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from celery.signals import task_postrun, task_prerun
from channels.layers import InMemoryChannelLayer
from django.test import Client as Browser

from aggregator import log_context
from fedui.accounts.models import User
from fedui.asgi import application
from fedui.clients.tokens import TokenText
from fedui.federations.models import Federation
from fedui.logging import RedactingFormatter, logging_config, without_secrets
from tests.support.domain import a_run
from tests.support.web_server import session_cookie

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


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("log_format", ["json"])
async def test_sockets_say_what_they_are_about(
    logged: io.StringIO, monkeypatch: pytest.MonkeyPatch, federation: Federation, owner: User
) -> None:
    """Of two pages side by side each its own: the layer goes away, and each says so as it leaves."""
    run = await sync_to_async(a_run)(federation, owner)
    cookie = (await sync_to_async(session_cookie)("owner")).encode()
    headers = [(b"cookie", cookie), (b"origin", b"http://testserver"), (b"host", b"testserver")]
    paths = {f"/ws/runs/{run.pk}/": b"from-the-proxy", "/ws/federations/hearts/": b"another\tline"}
    sockets: list[Any] = []  # it has no types
    for path, sent in paths.items():
        scope = {"type": "websocket", "path": path, "headers": [*headers, (b"x-request-id", sent)], "query_string": b""}
        socket: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]
        sockets.append(socket)
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output(10))["type"] == "websocket.accept"
        assert json.loads((await socket.receive_output(10))["text"])["type"] == "hello"

    async def away(*_: object) -> None:
        raise ConnectionError("no Redis")

    monkeypatch.setattr(InMemoryChannelLayer, "group_discard", away)
    for socket in sockets:
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await socket.wait(10)
    lines = [json.loads(line) for line in logged.getvalue().splitlines() if "layer is away" in line]
    of_run = [line for line in lines if line["request_id"] == "from-the-proxy"]
    others = [line for line in lines if line not in of_run]
    assert {line.get("run_id") for line in of_run} == {str(run.pk)}
    assert {(line.get("run_id"), line["federation"]) for line in others} == {(None, "hearts")}
    assert len(of_run) == len(others) == 2  # the page's group, and the reader's


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
