from __future__ import annotations

import json
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import OuterRef, Subquery
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect

from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.registry.files import manifest_of, version_file
from fedui.registry.forms import DescribeForm, DescriptionForm, MoveForm, PromoteForm, names_of
from fedui.registry.models import RegisteredModel, RegisteredVersion, Stage
from fedui.registry.reading import (
    MOST_COMPARED,
    compared,
    figures_of,
    found_models,
    lineage_of,
    referrers_of,
    versions_with_sources,
)
from fedui.registry.services import ask_for_check, describe_model, describe_version, move, promote
from fedui.runs.figures import with_figures
from fedui.runs.models import ModelVersion
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import explain

MODELS_A_PAGE, VERSIONS_A_PAGE, CHECKPOINTS_A_PAGE = 10, 50, 50
CHANGES_SHOWN = 50


@member_view()
def models(request: MemberRequest) -> HttpResponse:
    """What was promoted, or with `view=runs` the latest checkpoint of each run."""
    if request.GET.get("view") == "runs":
        return _latest_of_runs(request)
    text, stage = request.GET.get("q", "").strip()[:200], request.GET.get("stage", "")
    shown = Paginator(found_models(request.federation, text, stage), MODELS_A_PAGE).get_page(request.GET.get("page"))
    figures = figures_of(version.source for model in shown for version in model.newest)  # type: ignore[attr-defined]
    context = {"shown": shown, "figures": figures, "text": text, "stage": stage, "stages": Stage.choices}
    return page(request, "registry/list.html", context)


def _latest_of_runs(request: MemberRequest) -> HttpResponse:
    latest = ModelVersion.objects.filter(run=OuterRef("run")).order_by("-round_number").values("pk")[:1]
    found = (
        ModelVersion.objects.filter(run__federation=request.federation, pk=Subquery(latest))
        .select_related("run__app", "run__strategy_version__strategy")
        .order_by("-run_id")
    )
    shown = Paginator(found, CHECKPOINTS_A_PAGE).get_page(request.GET.get("page"))
    figures = {f.run.pk: f for f in with_figures(model.run for model in shown)}
    rows = [(model, figures[model.run_id]) for model in shown]
    return page(request, "registry/latest.html", {"shown": shown, "rows": rows})


@member_view()
def model(request: MemberRequest, name: str) -> HttpResponse:
    model = _model(request, name)
    versions = versions_with_sources().filter(model=model)
    shown = Paginator(versions, VERSIONS_A_PAGE).get_page(request.GET.get("page"))
    production = next((v for v in shown if v.status == Stage.PRODUCTION), None)
    side_by_side = _chosen(request.GET.get("versions", ""), versions) or list(shown)[:MOST_COMPARED]
    baseline = production if production in side_by_side else (side_by_side[-1] if side_by_side else None)
    context = {
        "model": model,
        "shown": shown,
        "figures": figures_of(version.source for version in shown),
        "side_by_side": side_by_side,
        "baseline": baseline,
        "metrics": compared(side_by_side, baseline),
        "form": DescriptionForm(initial={"description": model.description}),
    }
    return page(request, "registry/model.html", context)


def _chosen(asked: str, versions: Any) -> list[RegisteredVersion]:
    """`3,1` names two versions to compare. What makes no sense is left out."""
    numbers = [int(part) for part in asked.split(",") if part.isascii() and part.isdecimal() and len(part) < 9]
    return list(versions.filter(number__in=numbers[:MOST_COMPARED])) if numbers else []


@member_view("POST", act=Act.PROMOTE_MODELS)
def describe(request: MemberRequest, name: str) -> HttpResponse:
    model = _model(request, name)
    form = DescriptionForm(request.POST)
    if form.is_valid():
        describe_model(model, request.user, form.cleaned_data["description"], address=address_of(request))
        messages.success(request, "The description is saved.")
    else:
        messages.error(request, f"The description was not saved. {form.errors['description'][0]}")
    return redirect("federation:model", request.federation.slug, model.name)


@member_view()
def version(request: MemberRequest, name: str, number: int) -> HttpResponse:
    version = _version(request, name, number)
    context = {
        "version": version,
        "metrics": figures_of([version.source])[version.source_id],
        "lineage": lineage_of(version.source)[::-1],
        "manifest": manifest_of(version.source),
        "changes": version.changes.all()[:CHANGES_SHOWN],
        "stages": [stage for stage in _reachable(request, version) if stage != version.stage],
        "form": DescribeForm(initial={"tags": ", ".join(version.tags), "notes": version.notes}),
        "production": version.model.versions.filter(status=Stage.PRODUCTION).exclude(pk=version.pk).first(),
    } | referrers_of(version)
    return fragment_or_page(request, "registry/version.html", "registry/_check.html", context)


def _reachable(request: MemberRequest, version: RegisteredVersion) -> list[Stage]:
    """The stages that the member may move the version to."""
    if not request.membership.may(Act.PROMOTE_MODELS):
        return []
    if request.membership.may(Act.RELEASE_MODELS):
        return list(Stage)
    return [] if version.stage == Stage.PRODUCTION else [stage for stage in Stage if stage != Stage.PRODUCTION]


@member_view("POST", act=Act.PROMOTE_MODELS)
def change(request: MemberRequest, name: str, number: int) -> HttpResponse:
    """Tags and notes."""
    version = _version(request, name, number)
    form = DescribeForm(request.POST)
    if form.is_valid():
        describe_version(version, request.user, **form.cleaned_data, address=address_of(request))
        messages.success(request, "Tags and notes are saved.")
    else:
        messages.error(request, f"Nothing was saved. {_first_error(form)}")
    return _to(request, version)


@member_view("POST", act=Act.PROMOTE_MODELS)
def stage(request: MemberRequest, name: str, number: int) -> HttpResponse:
    version = _version(request, name, number)
    form = MoveForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"The stage was not changed. {_first_error(form)}")
        return _to(request, version)
    try:
        wanted = Stage(form.cleaned_data["stage"])
        move(version, wanted, request.membership, note=form.cleaned_data["note"], address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, f"{version} is in stage {wanted.label.lower()}.")
    return _to(request, version)


@member_view("POST", act=Act.PROMOTE_MODELS)
def check(request: MemberRequest, name: str, number: int) -> HttpResponse:
    version = _version(request, name, number)
    if ask_for_check(version, request.user, address=address_of(request)):
        messages.info(request, "A worker reads the file.")
    return _to(request, version)


@member_view()
def manifest(request: MemberRequest, name: str, number: int) -> HttpResponse:
    version = _version(request, name, number)
    content = manifest_of(version.source)
    if content is None:
        raise Http404(f"The manifest of {version} is missing from the model store.")
    response = HttpResponse(json.dumps(content, indent=2), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="{version.model.name}-v{version.number}.json"'
    return response


@member_view()
def file(request: MemberRequest, name: str, number: int) -> HttpResponseBase:
    return version_file(request, _version(request, name, number))


@member_view("GET", "HEAD", "POST", act=Act.PROMOTE_MODELS)
def promotion(request: MemberRequest, run_id: int) -> HttpResponse:
    """The form that promotes a checkpoint of the run."""
    run = get_object_or_404(request.federation.runs.select_related("app"), pk=run_id)
    there = list(run.models.filter(removed_at=None).values_list("round_number", flat=True))
    if not there:
        raise Http404("The run has no model to promote.")
    asked = request.GET.get("round", "")
    initial = {
        "round": int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 10 else there[0],
        "name": run.app.name,
    }
    form = PromoteForm(request.POST if request.method == "POST" else None, initial=initial)
    if form.is_valid() and (made := _promote(request, run_id, form)):
        return _to(request, made)
    context = {"run": run, "rounds": there, "form": form, "names": names_of(request.federation)}
    return page(request, "registry/promote.html", context, status=422 if form.is_bound else 200)


def _promote(request: MemberRequest, run_id: int, form: PromoteForm) -> RegisteredVersion | None:
    values = dict(form.cleaned_data)
    source = ModelVersion.objects.filter(run_id=run_id, round_number=values.pop("round")).select_related("run").first()
    if source is None:
        form.add_error("round", "The run has no model of this round.")
        return None
    try:
        made = promote(source, request.user, values.pop("name"), **values, address=address_of(request))
    except DomainError as error:
        explain(form, error)
        return None
    messages.success(request, f"Promoted as {made}.")
    return made


def _model(request: MemberRequest, name: str) -> RegisteredModel:
    return get_object_or_404(request.federation.registered_models.select_related("created_by"), name=name)


def _version(request: MemberRequest, name: str, number: int) -> RegisteredVersion:
    found = versions_with_sources().select_related("source__run__federation", "source__run__created_by")
    return get_object_or_404(found, model__federation=request.federation, model__name=name, number=number)


def _to(request: MemberRequest, version: RegisteredVersion) -> HttpResponse:
    return redirect("federation:model-version", request.federation.slug, version.model.name, version.number)


def _first_error(form: Any) -> str:
    return str(next(iter(form.errors.values()))[0])
