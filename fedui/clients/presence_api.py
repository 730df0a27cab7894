"""Clients over REST: who is there, what each has and publishes, how it fares."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fedui.clients.models import Client
from fedui.federations.models import Act, Membership


def _clients_of(request: Request, slug: str) -> QuerySet[Client]:
    """Those that whoever asks may see: a site admin sees their own alone."""
    memberships = Membership.objects.filter(federation__slug=slug).effective(request.user).that_may(Act.SEE_CLIENTS)
    return Client.objects.visible_to(get_object_or_404(memberships)).order_by("name")


class ClientList(APIView):
    """All clients of the federation, by name."""

    def get(self, request: Request, slug: str) -> Response:
        return Response({"clients": [_brief(client) for client in _clients_of(request, slug)]})


class ClientDetail(APIView):
    """One client, with its machine, vitals and data cards as its agent told them last."""

    def get(self, request: Request, slug: str, client_id: UUID) -> Response:
        client = get_object_or_404(_clients_of(request, slug), pk=client_id)
        more = {
            "platform": client.platform,
            "machine": client.machine,
            "vitals": client.vitals,
            "data_cards": client.cards,
            "apps": [{key: app.get(key) for key in ("name", "version", "framework", "problem")} for app in client.apps],
            "connected_at": client.connected_at,
            "reconnects": client.reconnects,
        }
        return Response(_brief(client) | more)


def _brief(client: Client) -> dict[str, Any]:
    return {
        "id": str(client.pk),
        "name": client.name,
        "presence": client.presence.value,
        "last_seen_at": client.last_seen_at,
        "unavailable": client.unavailable,
        "labels": client.labels,
        "agent_version": client.agent_version,
    }
