from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from fedui.runs.comparison import MOST, ComparisonRefused, ResultRow, asked
from fedui.web import figures
from fedui.web.access import MemberRequest, member_view, page


@member_view()
def comparison(request: MemberRequest) -> HttpResponse:
    try:
        compared = asked(request.federation, request.GET)
    except ComparisonRefused as error:
        return page(request, "runs/compare_refused.html", {"error": error, "most": MOST}, status=422)
    context = {
        "comparison": compared,
        "base": compared.runs[compared.base].run,
        "rows": [_row(row, compared.base) for row in compared.results()],
        "settings": compared.settings(),
        "target_value": "" if compared.target is None else f"{compared.target:.6g}",
        "target": figures.metric(compared.metric, compared.target),
    }
    return page(request, "runs/compare.html", context)


def _row(row: ResultRow, base: int) -> dict[str, Any]:
    """What the table shows of a row: text, distance from the pinned run, and whether it is the best."""
    best = row.best
    cells = zip(row.values, row.deltas(base), strict=True)
    return {
        "label": row.label,
        "cells": [
            {
                "text": _text(row.kind, value),
                "delta": _delta(row.kind, delta),
                "best": value is not None and value == best,
            }
            for value, delta in cells
        ],
    }


def _text(kind: str, value: float | None) -> str:
    match kind:
        case "round":
            return figures.plain(value)
        case "seconds":
            return figures.duration(value)
        case "bytes":
            return figures.byte_size(value)
        case "share":
            return figures.percent(value)
    return figures.metric(kind, value)


def _delta(kind: str, delta: float | None) -> str:
    if not delta:
        return ""
    return f"{'+' if delta > 0 else '−'}{_text(kind, abs(delta))}"
