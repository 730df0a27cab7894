"""How figures read on a page: thin precision, always a unit. `static/js/format.js` says the same in the browser."""

from __future__ import annotations

import re

NONE = "–"
_UNITS = ("B", "kB", "MB", "GB", "TB")
_SHARES = re.compile(r"accuracy|precision|recall|f1|auc")
_COSTS = re.compile(r"loss|error|perplexity")


def byte_size(value: float | None) -> str:
    if value is None:
        return NONE
    unit = 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    return f"{value:,.{1 if unit and value < 100 else 0}f} {_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        exact = whole % 60 == 0 and whole == seconds
        return f"{whole // 60} min" if exact else f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def milliseconds(seconds: float | None) -> str:
    """Of a delay: in ms below a second."""
    if seconds is None or seconds >= 1:
        return duration(seconds)
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"


def percent(share: float | None, digits: int = 1) -> str:
    return NONE if share is None else f"{share:.{digits}%}".replace("%", " %")


def plain(value: float | None) -> str:
    """A number of unknown unit: whole ones in full, others to six significant digits, with an exponent only far out."""
    if value is None:
        return NONE
    whole = float(value).is_integer() or abs(value) >= 1e5  # as many digits before the point as are shown anyway
    return f"{value:,.0f}" if whole and abs(value) < 1e15 else f"{value:,.6g}"


def metric(name: str, value: float | None) -> str:
    """A figure of a model: shares in per cent, everything else with three decimals."""
    if value is None:
        return NONE
    return percent(value) if _SHARES.search(name) else f"{value:,.3f}"


def difference(name: str, delta: float) -> str:
    """Between two values of a metric, with its sign; nothing where there is none."""
    return f"{'+' if delta > 0 else '−'}{metric(name, abs(delta))}" if delta else ""


def is_lower_better(metric: str) -> bool:
    return _COSTS.search(metric) is not None


def is_share(metric: str) -> bool:
    return _SHARES.search(metric) is not None
