from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Prefetch, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django_htmx.http import retarget

from aggregator.core.config import StrategyConfig
from fedui.clients.models import ClientStatus
from fedui.errors import DomainError
from fedui.federations.models import Act, Federation
from fedui.strategies.faults import BadStrategy, parse_yaml
from fedui.strategies.forms import ConfigForm, StrategyForm
from fedui.strategies.models import Strategy, StrategyVersion
from fedui.strategies.services import create_strategy, save_version
from fedui.strategies.summary import fleet_statement, summary
from fedui.web.access import MemberRequest, address_of, member_view, page, refuse
from fedui.web.forms import explain

PAGE_SIZE = 50
MAX_TEXT = 200


@member_view()
def strategies(request: MemberRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()[:MAX_TEXT]
    found = request.federation.strategies.annotate(run_count=Count("versions__runs", distinct=True)).order_by("name")
    for word in text.split():
        found = found.filter(Q(name__icontains=word) | Q(description__icontains=word))
    newest = StrategyVersion.objects.select_related("created_by").order_by("-number")[:1]
    listed = found.prefetch_related(Prefetch("versions", newest, to_attr="newest"))
    shown = Paginator(listed, PAGE_SIZE).get_page(request.GET.get("page"))
    return page(request, "strategies/list.html", {"shown": shown, "text": text})


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_STRATEGIES)
def new(request: MemberRequest) -> HttpResponse:
    data = request.POST if request.method == "POST" else None
    if request.htmx and "read_yaml" in request.POST:
        return _fill(request, {"about": StrategyForm(initial=request.POST.dict())})
    about, form = StrategyForm(data), ConfigForm(StrategyConfig(), data)
    if request.htmx:
        return _check(request, form)
    if about.is_valid() and form.config and (strategy := _create(request, about, form.config)):
        messages.success(request, f"Strategy {strategy.name} is saved as version 1.")
        return redirect("federation:strategy", request.federation.slug, strategy.name)
    return _editor(request, form, {"about": about})


def _create(request: MemberRequest, about: StrategyForm, config: StrategyConfig) -> Strategy | None:
    try:
        return create_strategy(
            request.federation, request.user, config=config, **about.cleaned_data, address=address_of(request)
        )
    except DomainError as error:
        explain(about, error)
        return None


@member_view("GET", "HEAD", "POST")
def strategy(request: MemberRequest, name: str) -> HttpResponse:
    strategy = get_object_or_404(request.federation.strategies, name=name)
    shown = {"strategy": strategy, "versions": _versions(strategy)}
    if request.method != "POST":
        return _editor(request, ConfigForm(strategy.latest.parsed), shown)
    if not request.membership.may(Act.MANAGE_STRATEGIES):
        return refuse(request, Act.MANAGE_STRATEGIES)
    if request.htmx and "read_yaml" in request.POST:
        return _fill(request, shown)
    form = ConfigForm(strategy.latest.parsed, request.POST)
    if request.htmx:
        return _check(request, form)
    if form.config is None:
        return _editor(request, form, shown)
    return _save(request, strategy, form.config)


def _save(request: MemberRequest, strategy: Strategy, config: StrategyConfig) -> HttpResponse:
    before = strategy.latest.number
    version = save_version(strategy, config, request.user, address=address_of(request))
    changed = version.number != before
    messages.success(request, f"Saved as version {version.number}." if changed else "Nothing has changed.")
    return redirect("federation:strategy", request.federation.slug, strategy.name)


def _versions(strategy: Strategy) -> QuerySet[StrategyVersion]:
    versions = strategy.versions.select_related("created_by")
    return versions.annotate(run_count=Count("runs")).order_by("-number")


def _editor(request: MemberRequest, form: ConfigForm, shown: dict[str, Any]) -> HttpResponse:
    context = {"form": form} | shown | _meaning(request.federation, form.config or form.initial)
    return page(request, "strategies/edit.html", context, status=422 if request.method == "POST" else 200)


def _check(request: MemberRequest, form: ConfigForm) -> HttpResponse:
    """The form as it stands, while it is being filled in: its errors, and what it means. Nothing is saved.

    Where it means nothing, the last meaning stays in the page, with the errors above it.
    """
    if form.config is None:
        return retarget(page(request, "strategies/_check.html", {"form": form}), "#meaning-errors")
    return page(request, "strategies/_check.html", {"form": form} | _meaning(request.federation, form.config))


def _fill(request: MemberRequest, shown: dict[str, Any]) -> HttpResponse:
    """The form as YAML fills it; or, where that is no strategy, the reason, and the form stays as it is."""
    try:
        config = parse_yaml(request.POST.get("yaml", ""))
    except BadStrategy as error:
        return retarget(page(request, "strategies/_yaml_faults.html", {"faults": error.faults}), "#yaml-faults")
    context = {"form": ConfigForm(config)} | shown | _meaning(request.federation, config)
    return page(request, "strategies/_editor.html", context)


def _meaning(federation: Federation, config: StrategyConfig) -> dict[str, Any]:
    clients = federation.clients.filter(status=ClientStatus.ACTIVE)
    return {"statements": [*summary(config), fleet_statement(config, clients)], "yaml": config.to_yaml()}
