from __future__ import annotations

from datetime import timedelta
from typing import Any

from csp.decorators import csp_replace
from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from fedui.api.throttles import attempts
from fedui.audit.services import record
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.reports.models import Naming
from fedui.reports.rendering import POLICY, report_response
from fedui.reports.shares import opened, share, take_back
from fedui.runs.models import Run
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page

LINKS_PER_MINUTE = 60
"""From one address, wrong ones included."""
DAYS = (1, 7, 30, 90)
SHOWN = 50


class ShareForm(forms.Form):
    days = forms.TypedChoiceField(choices=[(days, days) for days in DAYS], coerce=int)
    naming = forms.ChoiceField(choices=Naming.choices)
    note = forms.CharField(required=False, max_length=120)


@member_view()
@csp_replace(POLICY)  # type: ignore[arg-type]  # its type knows no views with parameters
def report(request: MemberRequest, run_id: int) -> HttpResponseBase:
    """The report for members; with `download=1` as a file."""
    run = _run(request, run_id)
    asked = request.GET.get("naming")
    naming = Naming(asked) if asked in Naming.values else Naming.NAMES
    return report_response(run, naming, download="download" in request.GET)


@member_view()
def shares(request: MemberRequest, run_id: int) -> HttpResponse:
    """The links to the run's report: a part of the run's page, and a page of its own."""
    return _shares(request, _run(request, run_id))


def _shares(request: MemberRequest, run: Run, **shown: Any) -> HttpResponse:
    context = {
        "run": run,
        "shares": run.shares.select_related("created_by")[:SHOWN],
        "days": DAYS,
        "namings": Naming.choices,
    }
    if shown:
        return page(request, "reports/shares.html", context | shown, status=shown.pop("status", 200))
    return fragment_or_page(request, "reports/shares.html", "reports/_shares.html", context)


@never_cache
@member_view("POST", act=Act.SHARE_REPORTS)
def new(request: MemberRequest, run_id: int) -> HttpResponse:
    """A link, shown this once."""
    run = _run(request, run_id)
    form = ShareForm(request.POST)
    if not form.is_valid():
        return _shares(
            request,
            run,
            refusal="The link was not made: choose how long it is good, and how clients are called.",
            status=422,
        )
    values = form.cleaned_data
    try:
        made, link = share(
            run, request.user, naming=Naming(values["naming"]), lifetime=timedelta(days=values["days"]),
            note=values["note"], address=address_of(request),
        )  # fmt: skip
    except DomainError as error:
        return _shares(request, run, refusal=f"{error} {error.hint}", status=422)
    return _shares(request, run, link=link, made=made)


@member_view("POST", act=Act.SHARE_REPORTS)
def revoke(request: MemberRequest, run_id: int, share_id: int) -> HttpResponse:
    run = _run(request, run_id)
    take_back(get_object_or_404(run.shares, pk=share_id), request.user, address=address_of(request))
    messages.success(request, "The link opens nothing any more.")
    return redirect("federation:run-shares", request.federation.slug, run.pk)


@require_safe
@csp_replace(POLICY)  # type: ignore[arg-type]  # its type knows no views with parameters
def shared(request: HttpRequest, secret: str) -> HttpResponse:
    """The report, for whoever has the link. Links that are wrong, over or taken back look alike."""
    address = address_of(request)
    number = attempts(f"shared-report:{address}")
    if number > LINKS_PER_MINUTE:
        if number == LINKS_PER_MINUTE + 1:  # once a minute: an attacker fills no log
            record(None, "link", "share.throttled", address or "unknown address", address=address)
        return _nothing(request, 429)
    found = opened(secret, address)
    if found is None:
        return _nothing(request, 404)
    run = Run.objects.select_related(*_RELATED).get(pk=found.run_id)
    return report_response(run, Naming(found.naming), download="download" in request.GET)


def _nothing(request: HttpRequest, status: int) -> HttpResponse:
    response = render(request, "reports/nothing.html", {"throttled": status == 429}, status=status)
    response["X-Robots-Tag"] = "noindex, nofollow, noarchive"
    response["Referrer-Policy"] = "no-referrer"
    response["Cache-Control"] = "no-store"
    if status == 429:
        response["Retry-After"] = "60"
    return response


_RELATED = ("federation", "app", "strategy_version__strategy", "created_by", "origin__run")


def _run(request: MemberRequest, run_id: int) -> Run:
    return get_object_or_404(request.federation.runs.select_related(*_RELATED), pk=run_id)
