from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpResponse

from fedui.federations.models import Act
from fedui.web.access import MemberRequest, fragment_or_page, member_view

PAGE_SIZE = 50


@member_view(act=Act.READ_AUDIT)
def audit(request: MemberRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()
    found = request.federation.audit_events.all()
    for word in text.split():
        found = found.filter(Q(action__icontains=word) | Q(subject__icontains=word) | Q(actor_name__icontains=word))
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    return fragment_or_page(request, "audit/list.html", "audit/_list.html", {"shown": shown, "text": text})
