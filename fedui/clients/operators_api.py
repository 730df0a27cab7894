"""What operators do with clients over REST: admit or refuse who waits, suspend, reinstate, revoke."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from fedui.clients.admission import admit, refuse
from fedui.clients.models import Admission, AdmissionStatus, Client
from fedui.clients.services import reinstate_client, revoke_client, suspend_client
from fedui.federations.models import Act, Federation, Membership
from fedui.web.access import address_of

MAX_LISTED = 200
ACTS: dict[str, Callable[..., None]] = {
    "suspend": suspend_client,
    "reinstate": reinstate_client,
    "revoke": revoke_client,
}


def _managed(request: Request, slug: str) -> Federation:
    """The federation, if the user may manage its clients; none at all for those who aren't its members."""
    federation = get_object_or_404(Federation.objects.visible_to(request.user), slug=slug)
    membership = get_object_or_404(Membership, federation=federation, user_id=request.user.pk or 0)
    if not membership.may(Act.MANAGE_CLIENTS):
        raise PermissionDenied("Your role in this federation may not enrol or revoke clients.")
    return federation


class AdmissionList(APIView):
    """Who waits for admission, those who came first at the top; with `?status=admitted` or `refused`, the newest of those."""

    def get(self, request: Request, slug: str) -> Response:
        admissions = _managed(request, slug).admissions.select_related("token", "returning", "client", "decided_by")
        status = request.query_params.get("status", AdmissionStatus.WAITING)
        if status == AdmissionStatus.WAITING:
            found = admissions.waiting(timezone.now()).order_by("requested_at")
        else:
            found = admissions.filter(status=status)
        return Response({"admissions": [_described(admission) for admission in found[:MAX_LISTED]]})


class Refusal(serializers.Serializer[dict[str, str]]):
    reason = serializers.CharField(max_length=500)


class AdmissionDecision(APIView):
    def post(self, request: Request, slug: str, admission_id: UUID, decision: str) -> Response:
        admission = get_object_or_404(_managed(request, slug).admissions, pk=admission_id)
        user: Any = request.user
        address = address_of(request._request)  # noqa: SLF001  # Django's own request
        if decision == "admit":
            admit(admission, user, address=address)
        else:
            form = Refusal(data=request.data)
            form.is_valid(raise_exception=True)
            refuse(admission, user, form.validated_data["reason"], address=address)
        return Response(_described(admission))


class ClientAccess(APIView):
    """Suspension, reinstatement and revocation of a client."""

    def post(self, request: Request, slug: str, client_id: UUID, act: str) -> Response:
        client: Client = get_object_or_404(_managed(request, slug).clients, pk=client_id)
        ACTS[act](client, request.user, address=address_of(request._request))  # noqa: SLF001  # as above
        return Response({"id": str(client.pk), "name": client.name, "status": client.status})


def _described(admission: Admission) -> dict[str, Any]:
    return {
        "id": str(admission.pk),
        "status": admission.status,
        "name": admission.name,
        "host": admission.host,
        "platform": admission.platform,
        "agent_version": admission.agent_version,
        "address": admission.address,
        "labels": admission.labels,
        "token": admission.token.key_id,
        "fingerprint": admission.fingerprint,
        "returning": str(admission.returning_id) if admission.returning_id else None,
        "proven": admission.proven,
        "requested_at": admission.requested_at,
        "decided_at": admission.decided_at,
        "decided_by": admission.decided_by.username if admission.decided_by else None,
        "reason": admission.reason,
        "client": str(admission.client_id) if admission.client_id else None,
    }
