from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from fedui.api.files import lines_response
from fedui.audit import tasks
from fedui.audit.models import AuditEvent, ChainCheck
from fedui.audit.search import AuditSearch
from fedui.audit.services import check_log, entries, exported_lines, head_of_chain, record
from fedui.federations.models import Act, Federation
from fedui.web.access import MemberRequest, fragment_or_page, member_view, page

PAGE_SIZE = 50
AT_ONCE = 5_000
"""A log up to this length is verified while its reader waits, a second or two; a longer one by a worker."""


@member_view(act=Act.READ_AUDIT)
def audit(request: MemberRequest) -> HttpResponse:
    context = audit_context(request, request.federation.audit_events.all())
    return fragment_or_page(request, "audit/list.html", "audit/_list.html", context)


@member_view(act=Act.READ_AUDIT)
def entry(request: MemberRequest, number: int) -> HttpResponse:
    """All that is known of one entry, in a dialog."""
    found = get_object_or_404(request.federation.audit_events, pk=number)
    return page(request, "audit/_entry.html", {"entry": found})


@member_view("POST", act=Act.READ_AUDIT)
def verify(request: MemberRequest) -> HttpResponse:
    verify_now(request)
    return redirect("federation:audit", request.federation.slug)


@member_view("POST", act=Act.READ_AUDIT)
def export(request: MemberRequest) -> HttpResponseBase:
    return export_response(request, request.user, request.federation)


def audit_context(request: HttpRequest, found: QuerySet[AuditEvent]) -> dict[str, Any]:
    search = AuditSearch(request.GET)
    shown = Paginator(search.found(found), PAGE_SIZE).get_page(request.GET.get("page"))
    head = head_of_chain()
    return {"shown": shown, "search": search, "check": ChainCheck.objects.first(), "head": head}


def verify_now(request: HttpRequest) -> None:
    if head_of_chain().number > AT_ONCE:
        tasks.verify.delay()
        messages.info(request, "A worker verifies the log. Look again in a minute.")
        return
    check = check_log()
    if check.faults:
        messages.error(request, "The audit log is not as it was written.")
    else:
        messages.success(request, f"Chain verified: {check.entries:,} entries.")


def export_response(request: HttpRequest, actor: Any, federation: Federation | None) -> HttpResponseBase:
    """The whole chain as JSON Lines; of other federations' entries only what holds it together."""
    record(federation, actor, "audit.exported", "audit log")
    name = f"audit-{federation.slug if federation else 'installation'}-{timezone.now():%Y-%m-%d}.jsonl"
    lines = exported_lines(entries(), only=federation)
    return lines_response(request, lines, name, "application/jsonl")
