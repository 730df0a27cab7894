"""Logging of the program `fedagent`: one line an event on stderr, for people or for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from client_agent.config import LogFormat
from client_agent.log_context import about
from client_agent.terminal import printable

_FIELDS = ("federation", "client_id", "run_id", "round", "task_id")


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with what it is about."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **about(),
            **{name: getattr(record, name) for name in _FIELDS if hasattr(record, name)},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class TextFormatter(logging.Formatter):
    """One line an event, and a traceback's."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), "\n\t")


def configure(log_format: LogFormat) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
