"""Clients over REST: who is there, what each has and publishes, how it fares."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api import filters
from fedui.api.serializers import Body, Gives, LabelsField
from fedui.api.views import ApiView, ListView
from fedui.clients.models import Certificate, Client, ClientQuerySet, ClientStatus, Connection, Ending, Presence
from fedui.clients.services import label_client
from fedui.clients.trends import SPANS
from fedui.federations.models import Act


class ClientOut(serializers.Serializer[Client]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    number = serializers.IntegerField(help_text="In the order of enrolment.")
    status = serializers.ChoiceField(choices=ClientStatus.choices)
    presence = serializers.ChoiceField(choices=Presence.choices)
    labels = serializers.DictField(child=serializers.CharField())
    unavailable = serializers.CharField(help_text="Why the connected agent takes no tasks; may be empty.")
    agent_version = serializers.CharField()
    enrolled_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField(allow_null=True)


class OfferOut(serializers.Serializer[Any]):
    name = serializers.CharField(allow_null=True)
    version = serializers.CharField(allow_null=True)
    framework = serializers.CharField(allow_null=True)
    problem = serializers.CharField(allow_null=True, help_text="Why it can't be trained here; may be empty.")


class ClientMoreOut(ClientOut):
    platform = serializers.CharField()
    machine = serializers.DictField(help_text="What its machine has, as its agent told.")
    vitals = serializers.DictField(help_text="What its last heartbeat told.")
    data_cards = serializers.ListField(
        source="cards", child=serializers.DictField(), help_text="What its owner publishes of the data."
    )
    apps = serializers.SerializerMethodField()
    connected_at = serializers.DateTimeField(allow_null=True)
    reconnects = serializers.IntegerField()

    def get_apps(self, client: Client) -> list[dict[str, Any]]:
        return [{key: app.get(key) for key in ("name", "version", "framework", "problem")} for app in client.apps]


class LabelsOut(serializers.Serializer[Client]):
    labels = serializers.DictField(child=serializers.CharField())


class LabelsBody(Body):
    labels = LabelsField()


class ClientFilters(filters.Filters):
    presence = filters.ChoiceFilter(choices=Presence.choices, method="in_presence")
    status = filters.ChoiceFilter(choices=ClientStatus.choices)
    label = filters.CharFilter(method="with_label", help_text="name:value, of a label.")
    agent_version = filters.CharFilter()
    q = filters.CharFilter(field_name="name", lookup_expr="icontains", help_text="Part of the name.")

    def in_presence(self, found: ClientQuerySet, _: str, value: str) -> ClientQuerySet:
        return found.in_presence(Presence(value))

    def with_label(self, found: ClientQuerySet, _: str, value: str) -> ClientQuerySet:
        name, separator, wanted = value.partition(":")
        if not separator:
            raise serializers.ValidationError({"label": ["Write name:value."]})
        return found.labelled(name, wanted)


class ClientView(ApiView):
    noun = "clients"

    def clients(self) -> QuerySet[Client]:
        """Those that the caller may see: a site admin sees their own alone."""
        return Client.objects.visible_to(self.membership).select_related("federation")

    def client(self, client_id: UUID) -> Client:
        return get_object_or_404(self.clients(), pk=client_id)

    def locked_client(self, client_id: UUID) -> Client:
        return get_object_or_404(self.clients().select_for_update(of=("self",), no_key=True), pk=client_id)


class ClientList(ClientView, ListView):
    """The clients of a federation, by name; a site admin sees their own."""

    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(ClientOut, many=True)}
    queryset = Client.objects.none()
    filterset_class = ClientFilters
    ordering_fields = ("name", "number", "enrolled_at")
    ordering = "name"

    def rows(self) -> QuerySet[Client]:
        return self.clients()


class ClientDetail(ClientView):
    """One client, with its machine, vitals and data cards as its agent told them last."""

    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(ClientMoreOut)}

    def get(self, request: Request, slug: str, client_id: UUID) -> Response:
        return Response(ClientMoreOut(self.client(client_id)).data)


class ClientLabels(ClientView):
    """The labels of a client, by which strategies choose."""

    verbs = {"GET": "get_labels", "PUT": "replace_labels"}
    acts = {"GET": Act.SEE_CLIENTS, "PUT": Act.MANAGE_CLIENTS}
    takes = {"PUT": LabelsBody}
    gives = {"GET": Gives(LabelsOut), "PUT": Gives(LabelsOut)}

    def get(self, request: Request, slug: str, client_id: UUID) -> Response:
        return Response(LabelsOut(self.client(client_id)).data)

    def put(self, request: Request, slug: str, client_id: UUID) -> Response:
        """Give it these labels and no others. They count for cohorts that are selected from now on."""
        wanted, client = self.body(), self.locked_client(client_id)
        self.must_match(LabelsOut(client).data)
        label_client(client, self.actor, wanted["labels"], address=self.address)
        return Response(LabelsOut(client).data)


class CertificateOut(serializers.Serializer[Certificate]):
    serial = serializers.CharField()
    fingerprint = serializers.CharField(help_text="SHA-256 of the public key.")
    issued_at = serializers.DateTimeField()
    not_before = serializers.DateTimeField()
    not_after = serializers.DateTimeField()
    confirmed_at = serializers.DateTimeField(allow_null=True, help_text="When the agent first used it.")
    superseded_at = serializers.DateTimeField(allow_null=True, help_text="When the agent first used a newer one.")
    revoked_at = serializers.DateTimeField(allow_null=True)


class ClientCertificates(ClientView, ListView):
    """The certificates that were issued to a client, the newest first."""

    verbs = {"GET": "list_certificates"}
    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(CertificateOut, many=True)}
    queryset = Certificate.objects.none()
    ordering_fields = ("id", "issued_at")

    def rows(self) -> QuerySet[Certificate]:
        return self.client(self.kwargs["client_id"]).certificates.all()


class ConnectionOut(serializers.Serializer[Connection]):
    id = serializers.IntegerField()
    agent_version = serializers.CharField()
    opened_at = serializers.DateTimeField()
    closed_at = serializers.DateTimeField(allow_null=True)
    ending = serializers.ChoiceField(choices=Ending.choices, allow_blank=True)


class ClientConnections(ClientView, ListView):
    """The connections of a client's agent, the newest first."""

    verbs = {"GET": "list_connections"}
    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(ConnectionOut, many=True)}
    queryset = Connection.objects.none()
    ordering_fields = ("id", "opened_at")

    def rows(self) -> QuerySet[Connection]:
        return self.client(self.kwargs["client_id"]).connections.all()


class VitalsQuery(Body):
    span = serializers.ChoiceField(choices=list(SPANS), default="hour", help_text="How far back.")


class SampleOut(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    values = serializers.DictField(child=serializers.FloatField(allow_null=True), help_text="Means over the seconds.")


class VitalsOut(serializers.Serializer[Any]):
    seconds = serializers.IntegerField(help_text="That each sample sums up.")
    samples = SampleOut(many=True)


class ClientVitals(ClientView):
    """How the client's machine fared: means of what its heartbeats told."""

    verbs = {"GET": "get_vitals"}
    acts = {"GET": Act.SEE_CLIENTS}
    asks = VitalsQuery
    gives = {"GET": Gives(VitalsOut)}

    def get(self, request: Request, slug: str, client_id: UUID) -> Response:
        length, seconds = SPANS[self.query()["span"]]
        samples = self.client(client_id).samples.filter(seconds=seconds, at__gt=timezone.now() - length)
        return Response(VitalsOut({"seconds": seconds, "samples": samples}).data)
