"""A report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.cache import cache
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.utils.text import slugify

from fedui.reports import charts
from fedui.reports.content import SOURCE_LABELS, Report, report_of
from fedui.reports.models import Naming
from fedui.runs.models import Run
from fedui.web import figures

FRESH_SECONDS = 30
"""So long a report that was made is shown again: a link that is opened a hundred times costs one report."""
POLICY = {
    "default-src": ["'none'"], "style-src": ["'unsafe-inline'"], "img-src": ["data:"], "base-uri": ["'none'"], "form-action": ["'none'"],
    "frame-ancestors": ["'none'"],
}  # fmt: skip
"""Of the report's page: nothing is loaded, nothing runs."""


def report_response(run: Run, naming: Naming, *, download: bool = False) -> HttpResponse:
    response = HttpResponse(_html(run, naming))
    response["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "private, no-store"
    if download:
        name = slugify(run.name) or "run"
        response["Content-Disposition"] = f'attachment; filename="report-{name}-{run.pk}.html"'
    return response


def _html(run: Run, naming: Naming) -> str:
    key = f"report:{run.pk}:{naming.value}:{run.status}:{run.rounds_done}"
    made: Any = cache.get_or_set(key, partial(_render, run, naming), FRESH_SECONDS)
    return str(made)


def _render(run: Run, naming: Naming) -> str:
    report = report_of(run, naming)
    context = {
        "report": report,
        "run": run,
        "charts": [_chart(name, report) for name in report.curves],
        "participation": charts.bars(
            [(row.round.number, row.round.received, row.lost) for row in report.rounds],
            label="Updates that were counted and that were lost, by round",
        ),
    }
    return render_to_string("reports/report.html", context)


def _chart(name: str, report: Report) -> dict[str, Any]:
    curves = report.curves[name]
    drawn = charts.lines(curves, label=f"{name} by round", value=partial(figures.metric, name))
    return {"name": name, "svg": drawn, "sources": [SOURCE_LABELS[source] for source in curves]}
