from __future__ import annotations

import math

from django.contrib import messages
from django.db.models import Count, QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from aggregator.core.config import StrategyConfig
from fedui.clients.models import ClientStatus
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.strategies.forms import ConfigForm, StrategyForm
from fedui.strategies.models import Strategy, StrategyVersion
from fedui.strategies.services import create_strategy, save_version
from fedui.web.access import MemberRequest, address_of, member_view, page, refuse
from fedui.web.forms import explain


@member_view()
def strategies(request: MemberRequest) -> HttpResponse:
    found = request.federation.strategies.annotate(run_count=Count("versions__runs", distinct=True)).order_by("name")
    return page(request, "strategies/list.html", {"strategies": found.prefetch_related("versions__created_by")})


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_STRATEGIES)
def new(request: MemberRequest) -> HttpResponse:
    data = request.POST if request.method == "POST" else None
    about, form = StrategyForm(data), _form(request, StrategyConfig())
    if "read_yaml" in request.POST:
        return _editor(request, form, about=StrategyForm(initial=request.POST.dict()))
    if request.htmx:
        return _summary(request, form)
    if about.is_valid() and form.config and (strategy := _create(request, about, form.config)):
        messages.success(request, f"Strategy {strategy.name} is saved as version 1.")
        return redirect("federation:strategy", request.federation.slug, strategy.name)
    return _editor(request, form, about=about)


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
    if request.method != "POST":
        return _editor(request, ConfigForm(strategy.latest.parsed), strategy=strategy)
    if not request.membership.may(Act.MANAGE_STRATEGIES):
        return refuse(request, Act.MANAGE_STRATEGIES)
    form = _form(request, strategy.latest.parsed)
    if "read_yaml" in request.POST:
        return _editor(request, form, strategy=strategy)
    if request.htmx:
        return _summary(request, form)
    if form.config is None:
        return _editor(request, form, strategy=strategy)
    before = strategy.latest.number
    version = save_version(strategy, form.config, request.user, address=address_of(request))
    changed = version.number != before
    messages.success(request, f"Saved as version {version.number}." if changed else "Nothing has changed.")
    return redirect("federation:strategy", request.federation.slug, strategy.name)


def _form(request: MemberRequest, initial: StrategyConfig) -> ConfigForm:
    """Of the fields that were sent, or of the YAML if the reader asked for that to be read."""
    if "read_yaml" in request.POST:
        return ConfigForm.from_yaml(request.POST.get("yaml", ""), initial)
    return ConfigForm(initial, request.POST if request.method == "POST" else None)


def _editor(
    request: MemberRequest, form: ConfigForm, *, about: StrategyForm | None = None, strategy: Strategy | None = None
) -> HttpResponse:
    versions = _versions(strategy) if strategy else ()
    context = {"form": form, "about": about, "strategy": strategy, "versions": versions} | _meaning(request, form)
    refused = request.method == "POST" and (form.config is None or form.yaml_error or "read_yaml" not in request.POST)
    return page(request, "strategies/edit.html", context, status=422 if refused else 200)


def _versions(strategy: Strategy) -> QuerySet[StrategyVersion]:
    versions = strategy.versions.select_related("created_by")
    return versions.annotate(run_count=Count("runs")).order_by("-number")


def _summary(request: MemberRequest, form: ConfigForm) -> HttpResponse:
    """What the form means as it stands, while it is being filled in: nothing is saved."""
    return page(request, "strategies/_meaning.html", {"form": form} | _meaning(request, form))


def _meaning(request: MemberRequest, form: ConfigForm) -> dict[str, object]:
    if form.config is None:
        return {"config": None}
    wanted = form.config.cohort.labels.items()
    clients = request.federation.clients.filter(status=ClientStatus.ACTIVE)
    matching = [client for client in clients if wanted <= client.labels.items()]
    config = form.config
    return {
        "config": config,
        "yaml": config.to_yaml(),
        "matching": len(matching),
        "rule": config.aggregation.explain(config.faults.quorum),
        "cohort_size": math.ceil(config.cohort.over_selection * config.cohort.min_clients),
    }
