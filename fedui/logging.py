"""What the server's processes log: one readable or JSON line an entry, and never the secret of an enrolment token."""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

_NOISE = ("color_message", "request")
"""What Uvicorn and Django attach to entries that say the same in words."""
_TOKEN = re.compile(r"\b(fle_[a-z0-9]+)\.[\w.-]+")


def without_secrets(text: str) -> str:
    """`text` with the secret part of any enrolment token taken out; the part that names the token stays."""
    return _TOKEN.sub(r"\1.…", text)


class RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Takes secrets out of the finished line, so that arguments, tracebacks and libraries' entries are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def logging_config(*, log_format: str, level: str) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`, of structlog's loggers as well as the standard library's."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        _without_noise,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "default": {
                "()": RedactingFormatter,
                "foreign_pre_chain": shared,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format)],
            }
        },
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "default"}},
        "root": {"handlers": ["console"], "level": level},
        # Uvicorn and Django bring handlers of their own; here everything goes through the root's.
        "loggers": {
            **{
                name: {"handlers": [], "propagate": True}
                for name in ("django", "django.server", "uvicorn", "uvicorn.error", "uvicorn.access")
            },
            # A line for every request, and for every hint that beat sends, is a proxy's or a monitor's matter.
            **{name: {"level": "WARNING"} for name in ("uvicorn.access", "celery.beat")},
        },
    }


def _without_noise(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    for key in _NOISE:
        entry.pop(key, None)
    return entry


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        return [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
