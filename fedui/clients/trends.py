"""Vitals over the last hour or day, as lines that a page can draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from fedui.clients.models import VitalsSample
from fedui.web.figures import byte_size, milliseconds, percent

SPANS: Mapping[str, tuple[timedelta, int]] = {"hour": (timedelta(hours=1), 60), "day": (timedelta(days=1), 900)}
"""How long each is, and the seconds of its samples."""
WIDTH, HEIGHT = 300.0, 60.0


@dataclass(frozen=True, slots=True)
class Trend:
    """A line with gaps where nothing was heard."""

    label: str
    path: str
    """Of SVG, in a box of WIDTH x HEIGHT."""
    last: str
    middle: str
    most: str
    rows: Sequence[tuple[datetime, str]]
    """The same, to read: the newest first."""


_SHOWN: Mapping[str, tuple[str, Callable[[float | None], str], float]] = {
    "round_trip": ("Round trip", milliseconds, 0.0),
    "cpu": ("Processor", lambda value: percent(value, 0), 1.0),
    "gpu": ("GPU", lambda value: percent(value, 0), 1.0),
    "memory_used": ("Memory", byte_size, 0.0),
}
"""Label, wording, and what the scale reaches at least."""


def trends(samples: Iterable[VitalsSample], span: str, now: datetime, scale: Mapping[str, float]) -> dict[str, Trend]:
    """By the vital's name, of what was told at all. `scale`: what a vital's axis reaches, where that is known."""
    kept = list(samples)
    named = ((name, [(s.at, float(s.values[name])) for s in kept if name in s.values]) for name in _SHOWN)
    return {name: _trend(name, points, span, now, scale.get(name, 0.0)) for name, points in named if points}


def _trend(name: str, points: Sequence[tuple[datetime, float]], span: str, now: datetime, reach: float) -> Trend:
    label, wording, least = _SHOWN[name]
    length, seconds = SPANS[span]
    values = [value for _, value in points]
    top = max(*values, least, reach, 1e-9) if len(values) > 1 else max(values[0], least, reach, 1e-9)
    path, before = "", None
    for at, value in points:
        x = WIDTH * (1 - (now - at) / length)
        move = "M" if before is None or (at - before).total_seconds() > 1.5 * seconds else "L"
        path += f"{move}{max(0.0, x):.1f} {HEIGHT - value / top * (HEIGHT - 2) - 1:.1f}"
        before = at
    rows = [(at, wording(value)) for at, value in reversed(points)]
    return Trend(label, path, wording(values[-1]), wording(median(values)), wording(max(values)), rows)
