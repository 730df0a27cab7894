"""When a run will be done, and what its metric will then be: simple methods that say how sure they are, and when they can't say.

Time: the last `PACE_ROUNDS` gaps between the beginnings of rounds have mean m and standard deviation s. The n rounds that are left
take n·m, give or take z·s·√(n + n²/k): the spread of n rounds, and what k gaps leave open about their mean.

Metric: y = a + b·r^−p is fitted by least squares to the later half of the curve for each p of `POWERS`, and the p that fits best is
taken (learning curves are often close to a power law; nothing more is claimed). The band is the prediction interval of that
regression. Before anything is told, the method must pass a test on the run itself: fitted without the last fifth of the rounds, its
band must hold most of them. If not, or with fewer than `FEWEST_POINTS` rounds, there is no forecast, and the reason is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACE_ROUNDS = 20
FEWEST_GAPS = 5
FEWEST_POINTS = 10
POWERS = (0.25, 0.5, 1.0, 2.0)
COVERED = 0.7
"""Of the rounds that are held back, at least so many must lie in the band."""
Z90 = 1.645
CURVE_POINTS = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """A value and where it lies in nine cases of ten, if things go on as they have."""

    value: float
    low: float
    high: float

    def payload(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


class NoForecast(Exception):
    """Why not, for people."""


@dataclass(frozen=True, slots=True)
class _Fit:
    power: float
    coefficients: Floats
    spread: float
    inverse: Floats
    """Of the normal equations."""

    def at(self, rounds: Floats) -> tuple[Floats, Floats]:
        """Values and half the width of their bands."""
        basis = _basis(rounds, self.power)
        leverage = ((basis @ self.inverse) * basis).sum(axis=1)
        return basis @ self.coefficients, Z90 * self.spread * np.sqrt(1 + leverage)


def time_left(gaps: Sequence[float], rounds_left: int) -> Band:
    """Seconds. `gaps`: from the beginning of each round to that of the next, the newest last. Raises `NoForecast`."""
    last = np.array(gaps[-PACE_ROUNDS:], np.float64)
    if last.size < FEWEST_GAPS:
        raise NoForecast(f"The end can be told after {FEWEST_GAPS + 1} rounds.")
    mean, spread = float(last.mean()), float(last.std(ddof=1))
    value = rounds_left * mean
    half = Z90 * spread * math.sqrt(rounds_left + rounds_left**2 / last.size)
    return Band(value, max(0.0, value - half), value + half)


def curve_to(points: Sequence[tuple[int, float]], last_round: int, *, share: bool) -> list[tuple[int, Band]]:
    """The metric from the last measured round to the end of the run. `share`: it lies between 0 and 1. Raises `NoForecast`."""
    fit = _tested(points)
    first = points[-1][0]
    if last_round <= first:
        raise NoForecast("All rounds are done.")
    rounds = np.unique(np.linspace(first, last_round, min(CURVE_POINTS, last_round - first + 1)).round())
    values, halves = fit.at(rounds)
    bands = zip(rounds.tolist(), values.tolist(), (values - halves).tolist(), (values + halves).tolist(), strict=True)
    within = (0.0, 1.0) if share else (-math.inf, math.inf)
    return [(int(number), Band(*(min(max(v, within[0]), within[1]) for v in band))) for number, *band in bands]


def reached_at(curve: Sequence[tuple[int, Band]], target: float, *, lower_is_better: bool) -> dict[str, int | None]:
    """The round in which the value, and either edge of the band, first is as good as `target`; None: not in this run."""

    def first(name: str) -> int | None:
        good = (
            n
            for n, band in curve
            if (getattr(band, name) <= target if lower_is_better else getattr(band, name) >= target)
        )
        return next(good, None)

    best, worst = ("low", "high") if lower_is_better else ("high", "low")
    return {"expected": first("value"), "earliest": first(best), "latest": first(worst)}


def _tested(points: Sequence[tuple[int, float]]) -> _Fit:
    if len(points) < FEWEST_POINTS:
        raise NoForecast(f"The curve can be drawn on after {FEWEST_POINTS} measured rounds; there are {len(points)}.")
    held = len(points) // 5
    earlier, later = points[:-held], points[-held:]
    fit = _best_fit(earlier)
    rounds, values = _columns(later)
    expected, halves = fit.at(rounds)
    if float(np.mean(np.abs(values - expected) <= halves)) < COVERED:
        raise NoForecast(
            "The curve doesn't follow its own course: drawn on from four fifths of it, it misses the last fifth."
        )
    return _best_fit(points)


def _best_fit(points: Sequence[tuple[int, float]]) -> _Fit:
    rounds, values = _columns(points[-max(FEWEST_POINTS - 2, len(points) // 2) :])
    return min((_fit(rounds, values, power) for power in POWERS), key=lambda fit: fit.spread)


def _fit(rounds: Floats, values: Floats, power: float) -> _Fit:
    basis = _basis(rounds, power)
    inverse = np.asarray(np.linalg.pinv(basis.T @ basis), np.float64)
    coefficients: Floats = inverse @ basis.T @ values
    residuals = values - basis @ coefficients
    spread = math.sqrt(float(residuals @ residuals) / max(1, values.size - 2))
    return _Fit(power, coefficients, spread, inverse)


def _basis(rounds: Floats, power: float) -> Floats:
    return np.column_stack([np.ones_like(rounds), np.maximum(rounds, 1.0) ** -power])


def _columns(points: Sequence[tuple[int, float]]) -> tuple[Floats, Floats]:
    return np.array([n for n, _ in points], np.float64), np.array([v for _, v in points], np.float64)


def payload(curve: Sequence[tuple[int, Band]]) -> list[list[Any]]:
    return [[number, band.value, band.low, band.high] for number, band in curve]
