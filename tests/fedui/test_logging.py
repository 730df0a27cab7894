"""What is logged, and what never is."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from fedui.clients.tokens import TokenText
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


def test_the_part_that_names_a_token_stays() -> None:
    assert without_secrets(f"used {TEXT}, thanks") == f"used fle_{TEXT.key_id}.…, thanks"


def test_a_token_hides_its_secret_in_reprs() -> None:
    assert TEXT.secret not in repr(TEXT)
