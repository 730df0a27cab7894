from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect

from fedui.analytics.columns import MAX_LISTED, open_columns
from fedui.analytics.forms import STATISTICS, QueryForm
from fedui.analytics.models import Query, QueryQuerySet
from fedui.analytics.services import cancel_query, create_query
from fedui.errors import DomainError
from fedui.federations.models import Act, Federation
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import explain

PAGE_SIZE = 50
LABELS = {statistic.value: label for statistic, label in STATISTICS}
CHART_WIDTH, CHART_HEIGHT = 1000, 200
MAX_BARS = 100


def _queries_of(federation: Federation) -> QueryQuerySet:
    return Query.objects.filter(federation=federation).select_related("app", "created_by")


@member_view()
def queries(request: MemberRequest) -> HttpResponse:
    shown = Paginator(_queries_of(request.federation).without_results(), PAGE_SIZE).get_page(request.GET.get("page"))
    rows = [(query, _asked(query)) for query in shown]
    return fragment_or_page(request, "queries/list.html", "queries/_list.html", {"shown": shown, "rows": rows})


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_RUNS)
def new(request: MemberRequest) -> HttpResponse:
    columns = open_columns(request.federation)
    form = QueryForm(columns, request.POST if request.method == "POST" else None)
    if form.is_valid() and (query := _create(request, form)):
        return redirect("federation:query", request.federation.slug, query.pk)
    context = {"form": form, "columns": columns, "capped": len(columns) == MAX_LISTED}
    return page(request, "queries/new.html", context, status=422 if form.is_bound else 200)


def _create(request: MemberRequest, form: QueryForm) -> Query | None:
    app, config = form.cleaned_data["app"], form.cleaned_data["config"]
    try:
        return create_query(request.federation, request.user, app=app, config=config, address=address_of(request))
    except DomainError as error:
        explain(form, error)
        return None


@member_view()
def query(request: MemberRequest, query_id: int) -> HttpResponse:
    query = get_object_or_404(_queries_of(request.federation), pk=query_id)
    context = {"query": query, "asked": _asked(query)} | _shown_result(query)
    return fragment_or_page(request, "queries/detail.html", "queries/_detail.html", context)


@member_view()
def bins(request: MemberRequest, query_id: int) -> HttpResponse:
    """The table beside the histogram, which asks for it when it is opened: of many bins it is longer than the page."""
    query = get_object_or_404(_queries_of(request.federation), pk=query_id)
    if not (query.result and query.result["histogram"]):
        raise Http404
    return page(request, "queries/_bins.html", {"bins": _bins(query.result["histogram"])})


@member_view("POST", act=Act.MANAGE_RUNS)
def cancel(request: MemberRequest, query_id: int) -> HttpResponse:
    query = get_object_or_404(_queries_of(request.federation), pk=query_id)
    try:
        cancel_query(query, request.user, address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    return redirect("federation:query", request.federation.slug, query.pk)


def _asked(query: Query) -> str:
    return ", ".join(LABELS[name].lower() for name in query.config["statistics"])


def _shown_result(query: Query) -> dict[str, Any]:
    if query.result is None:
        return {}
    figures = [(LABELS[name], value) for name, value in query.result["figures"].items()]
    return {"figures": figures, "chart": _chart(query.result["histogram"])}


def _bins(histogram: dict[str, Any]) -> list[tuple[float | None, float | None, int]]:
    """From, to and number of values of each bin, and of what lies outside if there is any."""
    edges, counts = histogram["edges"], histogram["counts"]
    bins = list(zip(edges, edges[1:], counts, strict=False))
    below = [(None, edges[0], histogram["below"])] if histogram["below"] else []
    above = [(edges[-1], None, histogram["above"])] if histogram["above"] else []
    return [*below, *bins, *above]


def _chart(histogram: dict[str, Any] | None) -> dict[str, Any] | None:
    """Bars with a tooltip each in a chart of `CHART_WIDTH` x `CHART_HEIGHT`; where they would be many, one outline of all."""
    if histogram is None:
        return None
    edges, counts = histogram["edges"], histogram["counts"]
    width, tallest = CHART_WIDTH / len(counts), max([*counts, 1])
    tops = [CHART_HEIGHT * (1 - count / tallest) for count in counts]
    chart = {"low": edges[0], "high": edges[-1], "bins": len(counts), "tallest": tallest}
    if len(counts) > MAX_BARS:
        steps = (f"V{top:.1f}H{(index + 1) * width:.1f}" for index, top in enumerate(tops))
        return chart | {"outline": f"M0 {CHART_HEIGHT}{''.join(steps)}V{CHART_HEIGHT}Z"}
    bars = [
        {"low": low, "high": high, "count": count, "x": index * width, "y": top, "height": CHART_HEIGHT - top}
        for index, (low, high, count, top) in enumerate(zip(edges, edges[1:], counts, tops, strict=False))
    ]
    return chart | {"bars": bars, "width": width * 0.92}
