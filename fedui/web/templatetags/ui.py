"""The components that pages are made of, where one line of a template should do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from fedui.analytics.models import Query, QueryStatus
from fedui.clients.models import Client
from fedui.runs.models import Run
from fedui.web import figures

register = template.Library()

register.filter("byte_size", figures.byte_size)
register.filter("duration", figures.duration)
register.filter("percent", figures.percent)
register.filter("milliseconds", figures.milliseconds)

_NUMBERS = ("answered", "certificate", "accuracy", "loss", "duration")
"""Columns that can be sorted by and hold figures, which stand to the right."""
_RUN_LOOKS = {
    "stopping": "running",
    "pausing": "running",
    "scheduled": "queued",
    "waiting": "waiting",
    "stalled": "waiting",
    "recovering": "waiting",
}
"""Classes and icons of a run's conditions, where they aren't their own."""
_HUES, _SHAPES = 6, 4
_DASHES = ("none", "6 3", "2 3", "none", "6 3 2 3", "10 3", "2 3", "6 3")


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    return format_html('<svg class="i {}" aria-hidden="true"><use href="{}#{}"/></svg>', css, static("icons.svg"), name)


@register.simple_tag
def client_key(client: Client) -> SafeString:
    """The client's colour and shape, by its order of enrolment: the same on every page and in every chart."""
    at = client.number - 1
    return format_html('<span class="key k{}" data-s="{}"></span>', at % _HUES + 1, at // _HUES % _SHAPES)


@register.simple_tag
def who(client: Client) -> SafeString:
    return format_html(
        '<span class="who">{}<span class="t" dir="auto" title="{}">{}</span></span>',
        client_key(client),
        client.name,
        client.name,
    )


@register.simple_tag
def run_status(run: Run, css: str = "") -> SafeString:
    condition = run.condition
    look = _RUN_LOOKS.get(condition.kind, condition.kind)
    detail = format_html(' <span class="of">({})</span>', condition.detail) if condition.detail else ""
    return format_html(
        '<span class="status {} {}" data-kind="{}">{}<span>{}{}</span></span>',
        look, css, condition.kind, icon(f"s-{look}"), condition.label, detail,
    )  # fmt: skip


@register.simple_tag
def query_status(query: Query, css: str = "") -> SafeString:
    name = "stopped" if query.status == QueryStatus.CANCELLED else query.status
    label = QueryStatus(query.status).label
    return format_html('<span class="status {} {}">{}{}</span>', name, css, icon(f"s-{name}"), label)


@register.filter
def figure(value: float | None) -> str:
    """A figure of the clients' data: whole numbers in full, others to six significant digits."""
    return figures.plain(value)


@register.simple_tag
def run_key(index: int) -> SafeString:
    """The line that stands for a run among others, by colour and dash. `static/js/compare/lines.js` draws the same."""
    dash = _DASHES[index % len(_DASHES)]
    return format_html(
        '<svg class="run-key" width="22" height="4" aria-hidden="true"><path d="M0 2h22" stroke="var(--c{})" stroke-dasharray="{}"/></svg>',
        index % _HUES + 1,
        dash,
    )


@register.filter
def at(values: Sequence[Any], index: int) -> Any:
    return values[index]


@register.filter
def of(values: Mapping[Any, Any] | None, key: Any) -> Any:
    """A value by its key; None where there is none."""
    return values.get(key) if values else None


@register.simple_tag
def difference(name: str, delta: float) -> str:
    """Of a metric, with its sign."""
    return figures.difference(name, delta)


@register.simple_tag
def presence(client: Client, css: str = "") -> SafeString:
    state = client.presence
    return format_html(
        '<span class="status {} {}">{}{}</span>', state.value, css, icon(f"p-{state.value}"), state.label
    )


_REASON_ICONS = {
    "ready": "check", "unavailable": "pause", "late": "p-late", "offline": "p-offline", "never": "p-offline", "suspended": "p-suspended",
    "revoked": "p-revoked",
}  # fmt: skip


@register.filter
def reason_icon(reason: str) -> str:
    """Of a reason why a client would take part in a run, or would not."""
    return _REASON_ICONS.get(reason, "warn")


@register.simple_tag
def tags(values: Mapping[str, str] | Sequence[str]) -> SafeString:
    """Labels as tags; a dash where there are none."""
    words = [f"{key}:{value}" for key, value in values.items()] if isinstance(values, Mapping) else list(values)
    if not words:
        return format_html('<span class="mute">{}</span>', figures.NONE)
    return format_html(
        '<span class="tags">{}</span>',
        format_html_join(
            "", '<span class="tag" title="{0}"><span class="ell" dir="auto">{0}</span></span>', zip(words)
        ),
    )


@register.simple_tag
def ago(moment: datetime | None) -> SafeString:
    """Relative time under a day, else the date; the browser keeps it true."""
    if moment is None:
        return format_html('<span class="mute">{}</span>', "never")
    return format_html(
        '<time data-ago datetime="{}" title="{}">{}</time>',
        moment.isoformat(),
        f"{moment:%-d %b %Y, %H:%M:%S} UTC",
        _since(moment),
    )


def _since(moment: datetime) -> str:
    silence = max(timezone.now() - moment, timedelta(0))
    seconds = int(silence.total_seconds())
    if seconds < 60:
        return f"{seconds} s ago"
    if seconds < 3600:
        return f"{seconds // 60} min ago"
    return f"{seconds // 3600} h ago" if seconds < 86_400 else f"{moment:%-d %b %Y}"


@register.filter
def until(moment: datetime) -> str:
    """The time that is left, rounded, in its largest unit."""
    seconds = (moment - timezone.now()).total_seconds()
    if seconds <= 0:
        return "expired"
    for unit, size in (("day", 86_400), ("h", 3600), ("min", 60)):
        if seconds > 1.5 * size:
            return f"in {round(seconds / size)} {unit}{'s' if unit == 'day' else ''}"
    return f"in {round(seconds)} s"


@register.simple_tag
def metric(name: str, value: float | None) -> str:
    return figures.metric(name, value)


@register.simple_tag
def spark(values: Sequence[float]) -> SafeString | str:
    """An inline sparkline."""
    if len(values) < 2:
        return ""
    low, span = min(values), (max(values) - min(values)) or 1.0
    points = [(i / (len(values) - 1) * 80, 22 - (value - low) / span * 20) for i, value in enumerate(values)]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return format_html(
        '<svg class="spark" viewBox="0 0 80 24" aria-hidden="true"><path class="area" d="M{}L80 24L0 24Z"/>'
        '<path d="M{}"/><circle class="dot" cx="80" cy="{}" r="2"/></svg>',
        line,
        line,
        f"{points[-1][1]:.1f}",
    )


@register.filter
def skew(seconds: float | None) -> str:
    """How far a clock is off the server's."""
    if seconds is None:
        return figures.NONE
    if abs(seconds) < 0.05:
        return "right"
    words = figures.duration(abs(seconds)) if abs(seconds) >= 1 else f"{abs(seconds):.1f} s"
    return f"{words} {'ahead' if seconds > 0 else 'behind'}"


@register.filter
def most_labels(labels: Sequence[tuple[str, int]]) -> int:
    """The largest count of a data card."""
    return max((count for _, count in labels), default=1)


@register.filter
def share_of(part: float | None, whole: float | None) -> float:
    """Between 0 and 1; 0 where nothing is known."""
    return min(1.0, part / whole) if part and whole else 0.0


@register.simple_tag(takes_context=True)
def sort_link(context: template.Context, key: str, label: str) -> SafeString:
    """The head of a column that sorts: upward first, then downward."""
    now = str(context["sort"])
    changed = f"-{key}" if now == key else key
    state = {key: "ascending", f"-{key}": "descending"}.get(now)
    number = format_html(' class="{}"', "num") if key in _NUMBERS else ""
    aria = format_html(' aria-sort="{}"', state) if state else ""
    arrow = icon("down", "up" if state == "ascending" else "") if state else ""
    return format_html(
        '<th scope="col"{}{}><a class="sorts" href="{}">{}{}</a></th>',
        number,
        aria,
        query(context, sort=changed, page=""),
        label,
        arrow,
    )


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The page's own query string with some parameters replaced; an empty value drops its parameter."""
    params = context["request"].GET.copy()
    for name, value in changes.items():
        if value in ("", None):
            params.pop(name, None)
        else:
            params[name] = str(value)
    return f"?{params.urlencode()}"
