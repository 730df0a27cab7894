"""What installation administrators see of federations over REST: that they are there, and whether somebody can act for them."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.accounts.models import User
from fedui.api import filters
from fedui.api.access import Access
from fedui.api.serializers import Body, Gives
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.members_api import MemberOut
from fedui.federations.models import Federation
from fedui.federations.services import appoint_owner


class InstalledFederationOut(serializers.Serializer[Federation]):
    slug = serializers.CharField()
    name = serializers.CharField()
    members = serializers.IntegerField(source="member_count")
    owned = serializers.BooleanField(
        help_text="False: the account of every owner is deactivated, so that nobody can act."
    )
    created_at = serializers.DateTimeField()


class Appointment(Body):
    username = serializers.CharField(max_length=150, help_text="Of an account that is active, a member or not.")


class InstalledFilters(filters.Filters):
    owned = filters.BooleanFilter()


class InstalledFederations(ListView):
    """All federations of the installation, and which have nobody left who can act for them."""

    noun = "installation"
    verbs = {"GET": "list_federations"}
    acts = {"GET": Access.INSTALLATION}
    gives = {"GET": Gives(InstalledFederationOut, many=True)}
    queryset = Federation.objects.none()
    filterset_class = InstalledFilters
    ordering_fields = ("slug", "created_at")
    ordering = "slug"

    def rows(self) -> QuerySet[Any]:
        found: QuerySet[Any] = Federation.objects.with_owners().annotate(member_count=Count("memberships"))
        return found


class AppointOwner(ApiView):
    """Make an account the owner of a federation in which nobody can act: where the account of every owner is deactivated."""

    noun = "installation"
    verbs = {"POST": "appoint_owner"}
    acts = {"POST": Access.INSTALLATION}
    takes = {"POST": Appointment}
    gives = {"POST": Gives(MemberOut)}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION,)}

    def post(self, request: Request, slug: str) -> Response:
        wanted: dict[str, Any] = self.body()
        federation = get_object_or_404(Federation, slug=slug)
        user = User.objects.filter(username=wanted["username"]).first()
        if user is None:
            raise serializers.ValidationError({"username": ["There is no such account."]})
        return Response(MemberOut(appoint_owner(federation, user, self.actor, address=self.address)).data)
