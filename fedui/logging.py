"""What the server's processes log: one readable or JSON line an entry, with what it is about, and never the secret of a token or key."""

from __future__ import annotations

import logging
import re
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.types import EventDict, Processor, WrappedLogger

from aggregator.log_context import about

_NOISE = ("color_message", "request")
"""What Uvicorn and Django attach to entries that say the same in words."""
_SECRETS = (
    (re.compile(r"\b(fle_[a-z0-9]+)\.[\w.-]+"), r"\1.…"),
    (re.compile(r"\b(fedk_[a-z0-9]+)_\w+"), r"\1_…"),
    (re.compile(r"\bwhsec_[\w+/=-]+"), "whsec_…"),
    (re.compile(r"(/(?:invitations|reports|accounts/password/reset/key|accounts/confirm-email)/)[^\s\"'/?]+"), r"\1…"),
    (re.compile(r"\b(Bearer|Basic) [^\s\"']+", re.IGNORECASE), r"\1 …"),
)
"""Enrolment tokens, API keys, secrets of webhooks and of links, whatever is sent as authorization; and what is left of each."""


def without_secrets(text: str) -> str:
    """`text` with the secret part of tokens and keys taken out; the part that names one stays."""
    for pattern, rest in _SECRETS:
        text = pattern.sub(rest, text)
    return text


class RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Takes secrets out of the finished line, so that arguments, tracebacks and libraries' entries are covered too."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def logging_config(*, log_format: str, level: str) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`, of structlog's loggers as well as the standard library's."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_engine_context,
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
        # The handler has the level too: loggers of Django and uvicorn bring levels of their own.
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "default", "level": level}},
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


def _with_engine_context(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    """What an entry says by itself counts more."""
    return {**about(), **entry}


def _without_noise(logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
    for key in _NOISE:
        entry.pop(key, None)
    return entry


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        # Without the values of variables, among which may be anything.
        tracebacks = ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    return [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
