from __future__ import annotations

from typing import Any

import yaml
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from fedui.errors import DomainError
from fedui.federations.models import Act, Federation
from fedui.runs.figures import with_figures
from fedui.runs.forms import RunForm
from fedui.runs.models import ModelVersion, Run, RunStatus
from fedui.runs.preflight import preflight
from fedui.runs.services import create_run, stop_run
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import ConfirmForm, explain

PAGE_SIZE = 50
ACTIVE = [RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.STOPPING]
VIEWS: dict[str, tuple[str, list[RunStatus]]] = {
    "": ("All", []),
    "active": ("Active", ACTIVE),
    "completed": ("Completed", [RunStatus.COMPLETED]),
    "stopped": ("Stopped", [RunStatus.STOPPED]),
    "failed": ("Failed", [RunStatus.FAILED]),
}


def _runs_of(federation: Federation) -> QuerySet[Run]:
    return federation.runs.select_related("strategy_version__strategy", "app", "created_by")


@member_view()
def runs(request: MemberRequest) -> HttpResponse:
    view = request.GET.get("status", "")
    text = request.GET.get("q", "").strip()
    found = _runs_of(request.federation)
    if statuses := VIEWS.get(view, VIEWS[""])[1]:
        found = found.filter(status__in=statuses)
    if text:
        found = found.filter(
            Q(name__icontains=text) | Q(strategy_version__strategy__name__icontains=text) | Q(app__name__icontains=text)
        )
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {"shown": shown, "figures": with_figures(shown), "views": _views(request.federation, view), "text": text}
    return fragment_or_page(request, "runs/list.html", "runs/_list.html", context)


def _views(federation: Federation, current: str) -> list[dict[str, Any]]:
    counts = dict(federation.runs.order_by().values_list("status").annotate(Count("pk")))
    return [
        {
            "name": name,
            "label": label,
            "current": name == current,
            "count": sum(counts.get(status, 0) for status in statuses or RunStatus),
        }
        for name, (label, statuses) in VIEWS.items()
    ]


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_RUNS)
def new(request: MemberRequest) -> HttpResponse:
    federation = request.federation
    data = request.POST if request.method == "POST" else None
    form = RunForm(federation, data, initial=request.GET.dict())
    if form.is_valid() and (run := _create(request, form)):
        return redirect("federation:run", federation.slug, run.pk)
    app, version = form.chosen("app"), form.chosen("strategy_version")
    check = preflight(federation, app, version.parsed, version) if app and version else None
    template = "runs/_preflight.html" if request.htmx else "runs/new.html"
    status = 422 if form.is_bound else 200
    return page(request, template, {"form": form, "check": check}, status=status)


def _create(request: MemberRequest, form: RunForm) -> Run | None:
    try:
        return create_run(request.federation, request.user, **form.cleaned_data, address=address_of(request))
    except DomainError as error:
        explain(form, error)
        return None


@member_view()
def run(request: MemberRequest, run_id: int) -> HttpResponse:
    run = get_object_or_404(_runs_of(request.federation), pk=run_id)
    config = yaml.safe_dump(run.strategy_version.config, sort_keys=False, allow_unicode=True)
    return fragment_or_page(request, "runs/detail.html", "runs/_head.html", {"run": run, "config": config})


@member_view("POST", act=Act.MANAGE_RUNS)
def stop(request: MemberRequest, run_id: int) -> HttpResponse:
    run = get_object_or_404(_runs_of(request.federation), pk=run_id)
    confirm = ConfirmForm(run.name, request.POST)
    if not confirm.is_valid():
        messages.error(request, f"The run was not stopped. {confirm.errors['confirm'][0]}")
    else:
        try:
            stop_run(run, request.user, address_of(request))
        except DomainError as error:
            messages.error(request, f"{error} {error.hint}")
    return redirect("federation:run", request.federation.slug, run.pk)


@member_view()
def models(request: MemberRequest) -> HttpResponse:
    """The latest model of each run."""
    latest = ModelVersion.objects.filter(run=OuterRef("run")).order_by("-round_number").values("pk")[:1]
    found = (
        ModelVersion.objects.filter(run__federation=request.federation, pk=Subquery(latest))
        .select_related("run__app", "run__strategy_version__strategy")
        .order_by("-run_id")
    )
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    figures = {f.run.pk: f for f in with_figures(model.run for model in shown)}
    rows = [(model, figures[model.run_id]) for model in shown]
    return page(request, "runs/models.html", {"shown": shown, "rows": rows})
