from __future__ import annotations

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet, Sum
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect

from fedui.clients.models import Client, Presence
from fedui.clients.services import revoke_client
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.runs.models import Outcome, Participation
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view
from fedui.web.forms import ConfirmForm

PAGE_SIZE = 200
ROUNDS_SHOWN = 30


@member_view(act=Act.SEE_CLIENTS)
def clients(request: MemberRequest) -> HttpResponse:
    presence, text = request.GET.get("presence", ""), request.GET.get("q", "").strip()
    everybody = list(
        _with_participation(Client.objects.visible_to(request.membership)).prefetch_related("certificates")
    )
    counts = [(state, sum(client.presence == state for client in everybody)) for state in Presence]
    found = [client for client in everybody if _matches(client, presence, text)]
    context = {
        "total": len(everybody),
        "shown": Paginator(found, PAGE_SIZE).get_page(request.GET.get("page")),
        "counts": [(state, count) for state, count in counts if count],
        "presence": presence,
        "text": text,
    }
    return fragment_or_page(request, "clients/list.html", "clients/_list.html", context)


def _with_participation(clients: QuerySet[Client]) -> QuerySet[Client]:
    ended = ~Q(participations__outcome__in=[Outcome.PENDING, Outcome.CANCELLED])
    return clients.annotate(
        asked=Count("participations", filter=ended),
        answered=Count("participations", filter=Q(participations__outcome=Outcome.COMPLETED)),
    ).order_by("name")


def _matches(client: Client, presence: str, text: str) -> bool:
    labels = " ".join(f"{key}:{value}" for key, value in client.labels.items())
    haystack = f"{client.name} {labels}".lower()
    return (not presence or client.presence == presence) and all(word in haystack for word in text.lower().split())


@member_view(act=Act.SEE_CLIENTS)
def client(request: MemberRequest, client_id: str) -> HttpResponse:
    client = get_object_or_404(_with_participation(Client.objects.visible_to(request.membership)), pk=client_id)
    history = client.participations.select_related("round__run").order_by("-round__started_at", "-id")
    totals = client.participations.aggregate(up=Sum("bytes_up"), down=Sum("bytes_down"))
    context = {
        "client": client,
        "certificate": client.certificates.first(),
        "history": history[:ROUNDS_SHOWN],
        "last": history.filter(outcome=Outcome.COMPLETED).first(),
        "totals": totals,
        "round_seconds": _recent_round_seconds(history),
    }
    return fragment_or_page(request, "clients/detail.html", "clients/_detail.html", context)


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
