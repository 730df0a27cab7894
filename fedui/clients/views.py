from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import QuerySet, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from fedui.clients.listing import listing, with_participation
from fedui.clients.models import Client
from fedui.clients.services import revoke_client
from fedui.clients.trends import SPANS, Trend, trends
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.runs.models import Outcome, Participation
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view
from fedui.web.forms import ConfirmForm

PAGE_SIZE = 100
ROUNDS_SHOWN = 30
CONNECTIONS_SHOWN = 12
REFUSALS_SHOWN = 5


@member_view(act=Act.SEE_CLIENTS)
def clients(request: MemberRequest) -> HttpResponse:
    found = listing(Client.objects.visible_to(request.membership), request.GET)
    shown = Paginator(found.found, PAGE_SIZE).get_page(request.GET.get("page"))
    with_participation(shown)
    context = {"listing": found, "shown": shown, "sort": found.sort}
    return fragment_or_page(request, "clients/list.html", "clients/_list.html", context)


@member_view(act=Act.SEE_CLIENTS)
def client(request: MemberRequest, client_id: str) -> HttpResponse:
    client = get_object_or_404(Client.objects.visible_to(request.membership), pk=client_id)
    with_participation([client])
    history = client.participations.select_related("round__run").order_by("-round__started_at", "-id")
    totals = client.participations.aggregate(up=Sum("bytes_up"), down=Sum("bytes_down"))
    span = request.GET.get("span", "hour")
    context = {
        "client": client,
        "certificate": client.certificates.first(),
        "history": history[:ROUNDS_SHOWN],
        "last": history.filter(outcome=Outcome.COMPLETED).first(),
        "totals": totals,
        "round_seconds": _recent_round_seconds(history),
        "refusals": history.filter(outcome=Outcome.REFUSED)[:REFUSALS_SHOWN],
        "connections": client.connections.all()[:CONNECTIONS_SHOWN],
        "span": span if span in SPANS else "hour",
        "trends": _trends(client, span if span in SPANS else "hour"),
    }
    return fragment_or_page(request, "clients/detail.html", "clients/_detail.html", context)


def _trends(client: Client, span: str) -> dict[str, Trend]:
    now, (length, seconds) = timezone.now(), SPANS[span]
    samples = client.samples.filter(seconds=seconds, at__gt=now - length)
    return trends(samples, span, now, {"memory_used": client.machine.get("memory_bytes", 0)})


def _recent_round_seconds(history: QuerySet[Participation]) -> list[float]:
    """How long the client took in its last rounds, the oldest first."""
    rows = history.filter(outcome=Outcome.COMPLETED)[:ROUNDS_SHOWN]
    return [_seconds(row) for row in rows][::-1]


def _seconds(row: Participation) -> float:
    return (row.download_seconds or 0) + (row.train_seconds or 0) + (row.upload_seconds or 0)


@member_view("POST", act=Act.REVOKE_CLIENTS)
def revoke(request: MemberRequest, client_id: str) -> HttpResponse:
    client = get_object_or_404(Client.objects.visible_to(request.membership), pk=client_id)
    confirm = ConfirmForm(client.name, request.POST)
    if not confirm.is_valid():
        messages.error(request, f"{client.name} was not revoked. {confirm.errors['confirm'][0]}")
    else:
        try:
            revoke_client(client, request.user, address=address_of(request))
        except DomainError as error:
            messages.error(request, f"{error} {error.hint}")
        else:
            messages.success(request, f"{client.name} is revoked.")
    return redirect("federation:client", request.federation.slug, client.pk)
