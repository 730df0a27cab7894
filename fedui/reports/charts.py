"""Charts as SVG, drawn on the server: they need no script, and print as they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 10, 34
MAX_POINTS = 600
"""Of one line: about as many as a page has dots."""

Point = tuple[float, float]
Series = Mapping[str, Sequence[Point]]


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def lines(series: Series, *, label: str, value: Callable[[float], str]) -> SafeString | str:
    """By round. `value` says how a figure reads; empty where there is nothing to draw."""
    points = [point for line in series.values() for point in line]
    if not points:
        return ""
    x = _scale([at for at, _ in points], LEFT, WIDTH - RIGHT)
    y = _scale([figure for _, figure in points], HEIGHT - BOTTOM, TOP)
    drawn = format_html_join(
        "",
        '<path class="line s{}" d="{}"/>{}',
        (
            (index, _path(thinned(line), x, y), _dot(index, line[-1], x, y))
            for index, line in enumerate(series.values())
            if line
        ),
    )
    return _figure(label, _axes(x, y, value), drawn)


def bars(columns: Sequence[tuple[int, int, int]], *, label: str) -> SafeString | str:
    """Rounds with how many answered and how many didn't, one above the other."""
    if not columns:
        return ""
    x = Scale(columns[0][0] - 0.5, columns[-1][0] + 0.5, LEFT, WIDTH - RIGHT)
    y = Scale(0, max(1, *(answered + lost for _, answered, lost in columns)), HEIGHT - BOTTOM, TOP)
    step = math.ceil(len(columns) / MAX_POINTS)
    width = max((x(1) - x(0)) * step * 0.8, 0.6)
    drawn = format_html_join(
        "",
        '<rect class="answered" x="{}" y="{}" width="{}" height="{}"/><rect class="lost" x="{}" y="{}" width="{}" height="{}"/>',
        (
            (
                *_box(x(number) - width / 2, y(answered), width, y(0) - y(answered)),
                *_box(x(number) - width / 2, y(answered + lost), width, y(answered) - y(answered + lost)),
            )
            for number, answered, lost in columns[::step]
        ),
    )
    return _figure(label, _axes(x, y, lambda figure: f"{figure:,.0f}", counts=True), drawn)


def thinned(line: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Least and greatest of each stretch, so that no peak is lost, and both ends."""
    if len(line) <= most:
        return list(line)
    size = math.ceil(2 * len(line) / most)
    kept = {line[0], line[-1]}
    for start in range(0, len(line), size):
        stretch = line[start : start + size]
        kept |= {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
    return sorted(kept)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers between `low` and `high`."""
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _scale(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Scale(low, high, start, end)


def _axes(x: Scale, y: Scale, value: Callable[[float], str], *, counts: bool = False) -> SafeString:
    heights = [at for at in ticks(y.low, y.high) if not counts or float(at).is_integer()]
    horizontal = format_html_join(
        "",
        '<path class="grid" d="M{} {}H{}"/><text class="tick" x="{}" y="{}" text-anchor="end">{}</text>',
        ((LEFT, f"{y(at):.1f}", WIDTH - RIGHT, LEFT - 6, f"{y(at) + 4:.1f}", value(at)) for at in heights),
    )
    rounds = [at for at in ticks(x.low, x.high, 8) if float(at).is_integer()]
    vertical = format_html_join(
        "",
        '<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>',
        ((f"{x(at):.1f}", HEIGHT - BOTTOM + 14, f"{at:,.0f}") for at in rounds),
    )
    title = format_html(
        '<text class="tick" x="{}" y="{}" text-anchor="middle">Round</text>',
        (LEFT + WIDTH - RIGHT) / 2,
        HEIGHT - 4,
    )
    return horizontal + vertical + title


def _path(line: Sequence[Point], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{x(at):.1f} {y(figure):.1f}" for at, figure in line)


def _dot(index: int, point: Point, x: Scale, y: Scale) -> SafeString:
    return format_html(
        '<circle class="dot s{}" cx="{}" cy="{}" r="2.5"/>', index, f"{x(point[0]):.1f}", f"{y(point[1]):.1f}"
    )


def _box(*values: float) -> tuple[str, ...]:
    return tuple(f"{value:.1f}" for value in values)


def _figure(label: str, axes: SafeString, drawn: SafeString) -> SafeString:
    return format_html(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>', WIDTH, HEIGHT, label, axes, drawn
    )
