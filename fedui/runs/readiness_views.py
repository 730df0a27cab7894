"""The readiness board: which clients would take part in a run, and why the others not."""

from __future__ import annotations

from django.http import HttpResponse

from fedui.runs.forms import RunForm
from fedui.runs.preflight import preflight
from fedui.web.access import MemberRequest, fragment_or_page, member_view


@member_view()
def board(request: MemberRequest) -> HttpResponse:
    form = RunForm(request.federation, initial=request.GET.dict())
    app, version = form.chosen("app"), form.chosen("strategy_version")
    check = preflight(request.federation, app, version.parsed, version) if app and version else None
    return fragment_or_page(
        request, "clients/readiness.html", "clients/_readiness.html", {"form": form, "check": check}
    )
