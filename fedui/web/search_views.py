"""Search as a page, and as what the command palette fetches while its reader types."""

from __future__ import annotations

from itertools import groupby

from django.http import HttpResponse, JsonResponse

from fedui.federations.models import Act
from fedui.web.access import MemberRequest, member_view, page
from fedui.web.search import MAX_LENGTH
from fedui.web.search import search as find


@member_view(act=Act.SEE_CLIENTS)
def search(request: MemberRequest) -> HttpResponse:
    text = request.GET.get("q", "").strip()[:MAX_LENGTH]
    hits = find(request.membership, text)
    if request.headers.get("Accept", "").startswith("application/json"):
        response: HttpResponse = JsonResponse({"hits": [hit.payload() for hit in hits]})
    else:
        groups = [(name, list(found)) for name, found in groupby(hits, key=lambda hit: hit.group)]
        response = page(request, "web/search.html", {"text": text, "groups": groups})
    response["Vary"] = "Accept"
    response["Cache-Control"] = "private, no-store"
    return response
