from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse

from fedui.errors import DomainError
from fedui.federations.models import Act, Federation
from fedui.runs import weights
from fedui.runs.commands import Order, note_derived
from fedui.runs.figures import SORTS, in_order, with_figures
from fedui.runs.forms import RunForm
from fedui.runs.models import DRIVEN, CommandKind, ModelVersion, Priority, RoundStatus, Run, RunStatus
from fedui.runs.orders import BadOrder, obey
from fedui.runs.preflight import fork_notes, preflight
from fedui.runs.reproduction import as_yaml
from fedui.runs.retention import PROGRESS
from fedui.runs.services import RunRefused, create_run
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import ConfirmForm, explain

PAGE_SIZE = 50
MAX_KEY_LENGTH = 64
SHOWN_ROUNDS, SHOWN_FIGURES, SHOWN_EVENTS = 20, 40, 40
"""Of the newest, on the page that needs no script."""
_IS_NUMBER = re.compile(r"[0-9]{1,9}")
VIEWS: dict[str, tuple[str, list[RunStatus]]] = {
    "": ("All", []),
    "active": ("Active", [*DRIVEN, RunStatus.PAUSED]),
    "queued": ("Queue", [RunStatus.QUEUED]),
    "completed": ("Completed", [RunStatus.COMPLETED]),
    "stopped": ("Stopped", [RunStatus.STOPPED]),
    "failed": ("Failed", [RunStatus.FAILED]),
}


def _runs_of(federation: Federation) -> QuerySet[Run]:
    return federation.runs.select_related("strategy_version__strategy", "app", "created_by", "origin__run")


@member_view()
def runs(request: MemberRequest) -> HttpResponse:
    view = request.GET.get("status", "")
    text = request.GET.get("q", "").strip()
    found = _runs_of(request.federation)
    if statuses := VIEWS.get(view, VIEWS[""])[1]:
        found = found.filter(status__in=statuses)
    sort = request.GET.get("sort", "")
    if sort.removeprefix("-") not in SORTS:
        sort = ""
    if sort:
        found = in_order(found, sort)
    elif view == RunStatus.QUEUED:
        found = found.order_by("-priority", "queued_at", "pk")  # as they will begin
    if text:
        found = found.filter(
            Q(name__icontains=text) | Q(strategy_version__strategy__name__icontains=text) | Q(app__name__icontains=text)
        )
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "shown": shown,
        "figures": with_figures(shown),
        "views": _views(request.federation, view),
        "text": text,
        "sort": sort,
    }
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
    form = RunForm(
        federation, data, initial={"key": uuid4().hex, "origin": _asked_origin(request)} | request.GET.dict()
    )
    if form.is_valid() and (run := _create(request, form)):
        return redirect("federation:run", federation.slug, run.pk)
    app, version = form.chosen("app"), form.chosen("strategy_version")
    check = preflight(federation, app, version.parsed, version) if app and version else None
    notes = fork_notes(form.begins_with, version.parsed) if form.begins_with and version else []
    template = "runs/_preflight.html" if request.htmx else "runs/new.html"
    status = 422 if form.is_bound else 200
    return page(request, template, {"form": form, "check": check, "fork_notes": notes}, status=status)


def _asked_origin(request: MemberRequest) -> int | None:
    """Id of the model that a fork was asked for by `fork_of` and `round`, if it is there."""
    run_id, number = request.GET.get("fork_of", ""), request.GET.get("round", "")
    if not (_IS_NUMBER.fullmatch(run_id) and _IS_NUMBER.fullmatch(number)):
        return None
    there = ModelVersion.objects.filter(run__federation=request.federation, removed_at=None)
    return there.filter(run_id=int(run_id), round_number=int(number)).values_list("pk", flat=True).first()


def _create(request: MemberRequest, form: RunForm) -> Run | None:
    values = dict(form.cleaned_data)
    clone_of, origin = values.pop("clone_of"), values["origin"]
    try:
        run = create_run(request.federation, request.user, **values, address=address_of(request))
    except DomainError as error:
        explain(form, error)
        return None
    order = Order(request.user, f"made-{run.pk}", address_of(request))
    if origin:
        note_derived(origin.run, order, CommandKind.FORK, run, {"round": origin.round_number})
    elif clone_of:
        note_derived(clone_of, order, CommandKind.CLONE, run, {})
    return run


@member_view()
def run(request: MemberRequest, run_id: int) -> HttpResponse:
    run = get_object_or_404(_runs_of(request.federation), pk=run_id)
    rounds = list(run.rounds.with_totals().order_by("-number", "-attempt")[:SHOWN_ROUNDS])
    context = {
        "run": run,
        "config": as_yaml(run),
        "figures": with_figures([run])[0],
        "rounds": rounds,
        "newest": next((one for one in rounds if one.status == RoundStatus.COMMITTED), None),
        "measured": run.metrics.order_by("-round_number", "source", "name")[:SHOWN_FIGURES],
        "happened": run.events.exclude(kind__in=PROGRESS).defer("data").order_by("-seq")[:SHOWN_EVENTS],
        "key": uuid4().hex,
        "last": run.models.filter(removed_at=None).first(),
        "forks": Run.objects.filter(origin__run=run).select_related("origin"),
        "commands": run.commands.all(),
        "priorities": Priority,
        "depends": run.strategy_version.parsed.depends_on_num_rounds,
    }
    return fragment_or_page(request, "runs/detail.html", "runs/_head.html", context)


@member_view()
def state(request: MemberRequest, run_id: int) -> HttpResponse:
    """What the header says of the run's state: it changes without any event, too."""
    run = get_object_or_404(_runs_of(request.federation), pk=run_id)
    return page(request, "runs/_state.html", {"run": run})


@member_view("POST", act=Act.MANAGE_RUNS)
def command(request: MemberRequest, run_id: int, kind: str) -> HttpResponse:
    run = get_object_or_404(_runs_of(request.federation), pk=run_id)
    if kind not in CommandKind.values:
        raise Http404
    if refusal := _refusal(run, CommandKind(kind), request):
        messages.error(request, refusal)
    return redirect(_as_it_was_seen(request, reverse("federation:run", args=[request.federation.slug, run.pk])))


def _as_it_was_seen(request: MemberRequest, address: str) -> str:
    """What a page shows, scripts write into its query: it is kept for who comes from that page."""
    came_from = urlsplit(request.headers.get("Referer", ""))
    return f"{address}?{came_from.query}" if came_from.path == address and came_from.query else address


def _refusal(run: Run, kind: CommandKind, request: MemberRequest) -> str:
    """Why the order isn't obeyed; empty if it is."""
    if kind == CommandKind.STOP:
        confirm = ConfirmForm(run.name, request.POST)
        if not confirm.is_valid():
            return f"The run was not stopped. {confirm.errors['confirm'][0]}"
    if kind == CommandKind.WEIGH and (refusal := _unconfirmed(run, request)):
        return refusal
    order = Order(request.user, request.POST.get("key", "")[:MAX_KEY_LENGTH], address_of(request))
    try:
        obey(run, order, kind, request.POST)
    except DomainError as error:
        return f"{error} {error.hint}"
    except BadOrder as error:
        return " ".join(word for words in error.errors.values() for word in words)
    return ""


def _unconfirmed(run: Run, request: MemberRequest) -> str:
    """To exclude a client its name is typed."""
    if request.POST.get("percent") != "0":
        return ""
    try:
        client = weights.client_of(run, request.POST.get("client", "")[:200])
    except RunRefused as error:
        return str(error)
    confirm = ConfirmForm(client.name, request.POST)
    return "" if confirm.is_valid() else f"The client was not excluded. {confirm.errors['confirm'][0]}"
