"""Federations over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.access import Access
from fedui.api.serializers import Body, Gives, messages_of
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.forms import FederationForm
from fedui.federations.models import Act, Federation, Role, SecondFactor
from fedui.federations.services import change_federation, create_federation


class FederationOut(serializers.Serializer[Federation]):
    slug = serializers.CharField(help_text="Its short name, in addresses.")
    name = serializers.CharField()
    description = serializers.CharField()
    second_factor = serializers.ChoiceField(choices=SecondFactor.choices, help_text="Of whom a sign-in takes one.")
    created_at = serializers.DateTimeField()


class NewFederation(Body):
    name = serializers.CharField(max_length=120)
    slug = serializers.SlugField(max_length=63, required=False, help_text="Made of the name, where there is none.")


class FederationChange(Body):
    name = serializers.CharField(max_length=120, required=False)
    second_factor = serializers.ChoiceField(choices=SecondFactor.choices, required=False)


class MineOut(FederationOut):
    role = serializers.ChoiceField(choices=Role.choices, help_text="The caller's.")


class FederationList(ListView):
    """The federations in which the caller is a member, as far as they count now; an API key has one."""

    noun = "federations"
    acts = {"GET": Access.SIGNED_IN, "POST": Access.ACCOUNT}
    takes = {"POST": NewFederation}
    gives = {"GET": Gives(MineOut, many=True), "POST": Gives(FederationOut, 201)}
    refusals = {"POST": (ErrorCode.NAME_TAKEN,)}
    queryset = Federation.objects.none()
    ordering_fields = ("slug", "name", "created_at")
    ordering = "slug"

    def rows(self) -> QuerySet[Any]:
        mine = self.memberships()
        role = Subquery(mine.filter(federation=OuterRef("pk")).values("role")[:1])
        return Federation.objects.filter(pk__in=mine.values("federation")).annotate(role=role)

    def post(self, request: Request) -> Response:
        """Make a federation; the caller becomes its owner."""
        form = FederationForm(self.body())
        if not form.is_valid():
            raise serializers.ValidationError(messages_of(form))
        wanted = form.cleaned_data
        made = create_federation(wanted["name"], wanted["slug"], self.actor, address=self.address)
        return Response(FederationOut(made).data, 201)


class FederationDetail(ApiView):
    """One federation."""

    noun = "federations"
    acts = {"GET": Act.SEE_CLIENTS, "PATCH": Act.MANAGE_MEMBERS}
    takes = {"PATCH": FederationChange}
    gives = {"GET": Gives(FederationOut), "PATCH": Gives(FederationOut)}

    def get(self, request: Request, slug: str) -> Response:
        return Response(FederationOut(self.federation).data)

    def patch(self, request: Request, slug: str) -> Response:
        """Rename it, or say of whom a sign-in takes a second factor."""
        wanted = self.body()
        federation = Federation.objects.select_for_update(no_key=True).get(pk=self.federation.pk)
        self.must_match(FederationOut(federation).data)
        change_federation(
            federation, self.actor, name=wanted.get("name", federation.name), address=self.address,
            second_factor=SecondFactor(wanted.get("second_factor", federation.second_factor)),
        )  # fmt: skip
        return Response(FederationOut(federation).data)
