"""Apps over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Gives
from fedui.api.views import ApiView, ListView
from fedui.catalog.models import App
from fedui.clients.models import ClientStatus
from fedui.federations.models import Act
from fedui.runs.preflight import offer_of


class TensorOut(serializers.Serializer[Any]):
    name = serializers.CharField()
    dtype = serializers.CharField()
    shape = serializers.ListField(child=serializers.IntegerField())


class AppOut(serializers.Serializer[App]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    version = serializers.CharField()
    first_offered_at = serializers.DateTimeField()


class OfferedOut(serializers.Serializer[Any]):
    client = serializers.UUIDField(source="pk")
    name = serializers.CharField()
    problem = serializers.CharField(help_text="Why it can't be trained there; empty: it can.")


class AppMoreOut(AppOut):
    signature = TensorOut(many=True, help_text="The tensors of its model, in order.")
    offered_by = OfferedOut(many=True)


class AppView(ApiView):
    noun = "apps"

    def apps(self) -> QuerySet[App]:
        return App.objects.filter(federation=self.membership.federation_id)


class AppList(AppView, ListView):
    """The apps that agents of a federation offer, or have offered."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(AppOut, many=True)}
    queryset = App.objects.none()
    filterset_fields = ("name", "version")
    ordering_fields = ("id", "first_offered_at")

    def rows(self) -> QuerySet[App]:
        return self.apps()


class AppDetail(AppView):
    """One app: its model's signature, and which active clients offer it."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(AppMoreOut)}

    def get(self, request: Request, slug: str, app_id: int) -> Response:
        app = get_object_or_404(self.apps(), pk=app_id)
        clients = self.federation.clients.filter(status=ClientStatus.ACTIVE)
        offers = [(client, offer_of(client, app)) for client in clients]
        offered = [
            {"pk": client.pk, "name": client.name, "problem": said} for client, said in offers if said is not None
        ]
        return Response(
            AppOut(app).data | {"signature": app.signature, "offered_by": OfferedOut(offered, many=True).data}
        )
