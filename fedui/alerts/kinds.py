"""What a rule may watch for, and the settings that each kind has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import models

from fedui.errors import DomainError, ErrorCode
from fedui.runs.models import MetricSource


class Severity(models.IntegerChoices):
    INFO = 0, "Notice"
    WARNING = 1, "Warning"
    CRITICAL = 2, "Critical"


class Kind(models.TextChoices):
    CLIENT_OFFLINE = "client_offline", "Client is offline"
    RUN_STALLED = "run_stalled", "Run is stalled"
    RUN_FAILED = "run_failed", "Run has failed"
    RUN_FINISHED = "run_finished", "Run has finished"
    METRIC_THRESHOLD = "metric_threshold", "Metric beyond a threshold"
    UPDATE_FLAGGED = "update_flagged", "Update is suspicious"
    CERTIFICATE_EXPIRING = "certificate_expiring", "Certificate is about to expire"
    DISK_LOW = "disk_low", "Disk is nearly full"
    QUORUM_MISSED = "quorum_missed", "Round has missed its quorum"


class BadRule(DomainError):
    """Settings that don't fit the rule's kind, or name what isn't there."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, field: str, detail: str, *, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.field = field
        self.extensions = {"field": field}


@dataclass(frozen=True, slots=True)
class Number:
    """A setting that is a number; whole where its bounds are whole."""

    name: str
    label: str
    unit: str
    default: float
    least: float
    most: float

    def clean(self, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not self.least <= number <= self.most:
            raise BadRule(self.name, f"{self.label} is a number from {self.least:g} to {self.most:g}.")
        if isinstance(self.least, int) and not number.is_integer():
            raise BadRule(self.name, f"{self.label} is a whole number.")
        return int(number) if isinstance(self.least, int) else number


@dataclass(frozen=True, slots=True)
class Choice:
    name: str
    label: str
    choices: tuple[tuple[str, str], ...]

    @property
    def default(self) -> str:
        return self.choices[0][0]

    def clean(self, value: Any) -> str:
        if not isinstance(value, str) or value not in dict(self.choices):
            names = ", ".join(name for name, _ in self.choices)
            raise BadRule(self.name, f"{self.label} is one of {names}.")
        return value


@dataclass(frozen=True, slots=True)
class Word:
    name: str
    label: str
    default: str
    longest: int = 63

    def clean(self, value: Any) -> str:
        text = value.strip() if isinstance(value, str) else ""
        if not text or len(text) > self.longest or not text.isprintable():
            raise BadRule(self.name, f"{self.label} is a word of 1 to {self.longest} characters.")
        return text


Setting = Number | Choice | Word
_IN_A_ROW = Number("rounds", "Rounds in a row", "rounds", 1, 1, 100)


@dataclass(frozen=True, slots=True)
class Traits:
    severity: Severity
    help: str
    settings: tuple[Setting, ...] = ()
    lasts: bool = True
    """Whether it is a state that ends by itself; otherwise an event, which is news only once."""
    has_preview: bool = True


TRAITS: Mapping[Kind, Traits] = {
    Kind.CLIENT_OFFLINE: Traits(
        Severity.WARNING,
        "No sign of life of an active client for so long. Ends when it is back.",
        (Number("minutes", "Offline for", "min", 15, 1, 10_080),),
    ),
    Kind.RUN_STALLED: Traits(
        Severity.WARNING,
        "A run in progress has told nothing for so long, and doesn’t wait for clients. Ends with its next event.",
        (Number("minutes", "Silent for", "min", 10, 2, 1_440),),
    ),
    Kind.RUN_FAILED: Traits(
        Severity.CRITICAL, "A run has ended by failing. Ends when it is tried again, or after a day.", lasts=False
    ),
    Kind.RUN_FINISHED: Traits(Severity.INFO, "A run is completed. Told, and never open.", lasts=False),
    Kind.METRIC_THRESHOLD: Traits(
        Severity.WARNING,
        "A figure of the global model after a round. Ends with the next value on the right side, with the run, or after a day.",
        (
            Word("metric", "Metric", "accuracy"),
            Choice("source", "Measured by", tuple(MetricSource.choices)),
            Choice("comparison", "Is", (("below", "below"), ("above", "above"))),
            Number("threshold", "Threshold", "", 0.5, -1e300, 1e300),
        ),
        lasts=False,
    ),
    Kind.UPDATE_FLAGGED: Traits(
        Severity.WARNING,
        "A client’s updates are unlike the others of their rounds. Ends with its next one that isn’t, with the run, or after a day.",
        (_IN_A_ROW,),
        lasts=False,
    ),
    Kind.CERTIFICATE_EXPIRING: Traits(
        Severity.WARNING,
        "A client has not renewed its certificate; and, 30 days ahead, the installation’s own authority.",
        (Number("hours", "Left before it expires", "h", 4, 1, 8_760),),
    ),
    Kind.DISK_LOW: Traits(
        Severity.WARNING,
        "Free space where an agent keeps its folder, as its heartbeats tell, or where the server keeps its data.",
        (Number("percent", "Free space under", "%", 10, 1, 50),),
    ),
    Kind.QUORUM_MISSED: Traits(
        Severity.WARNING,
        "A round was abandoned because too few updates came. Ends with the run’s next committed round, with the run, or after a day.",
        (_IN_A_ROW,),
        lasts=False,
    ),
}


def clean_settings(kind: Kind, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a rule of `kind`, with defaults for what isn't given. Raises `BadRule`."""
    known = {setting.name: setting for setting in TRAITS[kind].settings}
    if unknown := sorted(given.keys() - known.keys()):
        names = ", ".join(known) or "none"
        raise BadRule(unknown[0], f"“{kind.label}” has no setting {unknown[0]}.", hint=f"It has: {names}.")
    return {name: setting.clean(given.get(name, setting.default)) for name, setting in known.items()}


def in_words(kind: Kind, settings: Mapping[str, Any]) -> str:
    """The settings, as a line under the rule's name."""
    match kind:
        case Kind.METRIC_THRESHOLD:
            source = MetricSource(settings["source"]).label.lower()
            return f"{settings['metric']} {settings['comparison']} {settings['threshold']:g} ({source})"
        case Kind.UPDATE_FLAGGED | Kind.QUORUM_MISSED:
            return "at once" if settings["rounds"] == 1 else f"{settings['rounds']} rounds in a row"
        case Kind.CERTIFICATE_EXPIRING:
            return f"{settings['hours']} h before"
    return ", ".join(
        f"{setting.label.lower()} {settings[setting.name]:g} {setting.unit}"
        for setting in TRAITS[kind].settings
        if isinstance(setting, Number)
    )
