from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpResponse

from fedui.clients.models import ClientStatus
from fedui.runs.preflight import offer_of
from fedui.web.access import MemberRequest, fragment_or_page, member_view

PAGE_SIZE = 50


@member_view()
def apps(request: MemberRequest) -> HttpResponse:
    """What the agents offer, and which clients offer it."""
    active = request.federation.clients.filter(status=ClientStatus.ACTIVE)
    clients = list(active.defer("cards", "labels", "machine", "vitals"))
    rows = []
    listed = request.federation.apps.annotate(run_count=Count("runs")).order_by("name", "-first_offered_at", "pk")
    shown = Paginator(listed, PAGE_SIZE).get_page(request.GET.get("page"))
    for app in shown:
        offers = [(client, offer_of(client, app)) for client in clients]
        frameworks = {
            o["framework"] for c in clients for o in c.apps if (o["name"], o["version"]) == (app.name, app.version)
        }
        rows.append(
            {
                "app": app,
                "frameworks": sorted(frameworks),
                "offered_by": [client for client, problem in offers if problem == ""],
                "refused": [(client, problem) for client, problem in offers if problem],
            }
        )
    context = {"rows": rows, "shown": shown, "total": len(clients)}
    return fragment_or_page(request, "catalog/apps.html", "catalog/_apps.html", context)
