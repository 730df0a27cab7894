"""How a federation runs and what it keeps, on its settings page."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils import timezone

from fedui.federations.models import Act
from fedui.runs.forms import RunRulesForm
from fedui.runs.models import RunRules
from fedui.runs.retention import apply_policy
from fedui.runs.rules import save_rules
from fedui.runs.store import model_files
from fedui.web.access import MemberRequest, address_of, member_view, page


@member_view("POST", act=Act.MANAGE_SETTINGS)
def save(request: MemberRequest) -> HttpResponse:
    rules, _ = RunRules.objects.get_or_create(federation=request.federation)
    form = RunRulesForm(request.POST, instance=rules)
    if form.is_valid():
        save_rules(form, request.user, address=address_of(request))
        messages.success(request, "The settings of runs are saved.")
    else:
        for errors in form.errors.values():
            messages.error(request, f"The settings of runs were not saved. {' '.join(map(str, errors))}")
    return redirect("federation:settings", request.federation.slug)


@member_view(act=Act.MANAGE_SETTINGS)
def dry_run(request: MemberRequest) -> HttpResponse:
    """What would go now, if the job came by."""
    removal = apply_policy(request.federation, model_files(), timezone.now(), dry_run=True)
    return page(request, "runs/_dry_run.html", {"removal": removal})
