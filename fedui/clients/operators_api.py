"""What operators do with clients over REST: admit or refuse who waits, suspend, reinstate, revoke."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api import filters
from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.clients.admission import admit, refuse
from fedui.clients.models import Admission, AdmissionStatus
from fedui.clients.presence_api import ClientOut, ClientView
from fedui.clients.services import reinstate_client, revoke_client, suspend_client
from fedui.errors import ErrorCode
from fedui.federations.models import Act


class AdmissionOut(serializers.Serializer[Admission]):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=AdmissionStatus.choices)
    lapsed = serializers.BooleanField(source="has_lapsed", help_text="It has waited too long for an operator.")
    name = serializers.CharField()
    host = serializers.CharField()
    platform = serializers.CharField()
    agent_version = serializers.CharField()
    address = serializers.CharField(allow_null=True)
    labels = serializers.DictField(child=serializers.CharField(), help_text="That the client will have.")
    token = serializers.CharField(source="token.key_id")
    fingerprint = serializers.CharField(help_text="SHA-256 of its public key: compare it with the site.")
    returning = serializers.UUIDField(
        source="returning_id", allow_null=True, help_text="The client that it says it is."
    )
    proven = serializers.BooleanField(help_text="It has shown that it holds the key of that client.")
    requested_at = serializers.DateTimeField()
    decided_at = serializers.DateTimeField(allow_null=True)
    decided_by = serializers.CharField(source="decided_by.username", default=None, allow_null=True)
    reason = serializers.CharField(help_text="Why it was refused.")
    client = serializers.UUIDField(source="client_id", allow_null=True, help_text="That it has become.")


class AdmissionFilters(filters.Filters):
    status = filters.ChoiceFilter(choices=AdmissionStatus.choices)


class AdmissionView(ApiView):
    noun = "admissions"

    def admissions(self) -> QuerySet[Admission]:
        found = Admission.objects.filter(federation=self.membership.federation_id)
        return found.select_related("token", "returning", "client", "decided_by", "federation")


class AdmissionList(AdmissionView, ListView):
    """Who asks to become a client, and what became of it; `status=waiting` is the waiting room."""

    acts = {"GET": Act.MANAGE_CLIENTS}
    gives = {"GET": Gives(AdmissionOut, many=True)}
    queryset = Admission.objects.none()
    filterset_class = AdmissionFilters
    ordering_fields = ("requested_at",)
    ordering = "requested_at"

    def rows(self) -> QuerySet[Admission]:
        return self.admissions()


class AdmissionDetail(AdmissionView):
    """One request for admission."""

    acts = {"GET": Act.MANAGE_CLIENTS}
    gives = {"GET": Gives(AdmissionOut)}

    def get(self, request: Request, slug: str, admission_id: UUID) -> Response:
        return Response(AdmissionOut(get_object_or_404(self.admissions(), pk=admission_id)).data)


class Decision(AdmissionView):
    acts = {"POST": Act.MANAGE_CLIENTS}
    gives = {"POST": Gives(AdmissionOut)}

    def decided(self, admission_id: UUID) -> Admission:
        admission = get_object_or_404(self.admissions(), pk=admission_id)
        self.must_match(AdmissionOut(admission).data)
        return admission


class Admit(Decision):
    """Let the machine be a client. Its agent gets a certificate within seconds."""

    verbs = {"POST": "admit"}
    takes = {"POST": Nothing}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION, ErrorCode.NAME_TAKEN, ErrorCode.ADMISSION_REFUSED)}

    def post(self, request: Request, slug: str, admission_id: UUID) -> Response:
        self.body()
        admission = self.decided(admission_id)
        admit(admission, self.actor, address=self.address)
        return Response(AdmissionOut(admission).data)


class Refusal(Body):
    reason = serializers.CharField(max_length=500, help_text="Its agent is told.")


class Refuse(Decision):
    """Turn the machine away. Its use of the token stays spent."""

    verbs = {"POST": "refuse"}
    takes = {"POST": Refusal}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION,)}

    def post(self, request: Request, slug: str, admission_id: UUID) -> Response:
        wanted = self.body()
        admission = self.decided(admission_id)
        refuse(admission, self.actor, wanted["reason"], address=self.address)
        return Response(AdmissionOut(admission).data)


class ClientAct(ClientView):
    """Something that is done to a client."""

    acts = {"POST": Act.MANAGE_CLIENTS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(ClientOut)}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION,)}
    service: ClassVar[Any]

    def post(self, request: Request, slug: str, client_id: UUID) -> Response:
        self.body()
        client = self.client(client_id)
        self.must_match(ClientOut(client).data)
        type(self).service(client, self.actor, address=self.address)
        return Response(ClientOut(client).data)


class Suspend(ClientAct):
    """Cut the client off until it is reinstated."""

    verbs = {"POST": "suspend"}
    service = staticmethod(suspend_client)


class Reinstate(ClientAct):
    """Let a suspended client connect again."""

    verbs = {"POST": "reinstate"}
    service = staticmethod(reinstate_client)


class Revoke(ClientAct):
    """Cut the client off for good. A site admin may do it to their own."""

    verbs = {"POST": "revoke"}
    acts = {"POST": Act.REVOKE_CLIENTS}
    service = staticmethod(revoke_client)
