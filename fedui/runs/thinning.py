"""Curves for screens: no more points than there are columns to draw them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

MAX_POINTS = 2_000
"""Of one curve: more than a screen has columns."""


def thinned(points: Sequence[T], value: Callable[[T], float], most: int = MAX_POINTS) -> list[T]:
    """The first, lowest, highest and last point of each column of the screen; all of them where there are few."""
    if len(points) <= most:
        return list(points)
    columns = most // 4
    width = len(points) / columns
    kept: set[int] = set()
    for column in range(columns):
        part = range(round(column * width), round((column + 1) * width))
        by_value = sorted(part, key=lambda index: value(points[index]))
        kept |= {part[0], by_value[0], by_value[-1], part[-1]}
    return [points[index] for index in sorted(kept)]
