"""Enrolment tokens over REST."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives, LabelsField, Nothing
from fedui.api.views import ApiView, ListView
from fedui.clients.forms import MAX_USES
from fedui.clients.models import EnrolmentToken
from fedui.clients.services import create_token, revoke_token
from fedui.federations.models import Act

MAX_HOURS = 720


class TokenOut(serializers.Serializer[EnrolmentToken]):
    id = serializers.IntegerField()
    key_id = serializers.CharField(help_text="The part of its text that isn't secret.")
    note = serializers.CharField()
    state = serializers.ChoiceField(choices=["usable", "spent", "expired", "revoked"])
    labels = serializers.DictField(child=serializers.CharField(), help_text="That its clients get.")
    requires_approval = serializers.BooleanField(help_text="An operator admits each client.")
    max_uses = serializers.IntegerField()
    uses = serializers.IntegerField()
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)


class NewTokenOut(TokenOut):
    token = serializers.CharField(help_text="Shown this once.")


class NewToken(Body):
    note = serializers.CharField(max_length=120, help_text="What it is for.")
    max_uses = serializers.IntegerField(min_value=1, max_value=MAX_USES, default=1)
    hours = serializers.IntegerField(min_value=1, max_value=MAX_HOURS, default=24, help_text="Until it expires.")
    labels = LabelsField(default=dict)
    requires_approval = serializers.BooleanField(default=False)


class TokenView(ApiView):
    noun = "tokens"

    def tokens(self) -> QuerySet[EnrolmentToken]:
        found = EnrolmentToken.objects.filter(federation=self.membership.federation_id)
        return found.select_related("created_by", "federation")


class TokenList(TokenView, ListView):
    """Enrolment tokens, the newest first."""

    acts = {"GET": Act.MANAGE_TOKENS, "POST": Act.MANAGE_TOKENS}
    takes = {"POST": NewToken}
    gives = {"GET": Gives(TokenOut, many=True), "POST": Gives(NewTokenOut, 201)}
    queryset = EnrolmentToken.objects.none()
    filterset_fields = ("requires_approval",)
    ordering_fields = ("id", "expires_at")

    def rows(self) -> QuerySet[EnrolmentToken]:
        return self.tokens()

    def post(self, request: Request, slug: str) -> Response:
        """Make a token. Its text is in this answer and nowhere else."""
        wanted = self.body()
        lifetime = timedelta(hours=wanted.pop("hours"))
        token, text = create_token(self.federation, self.actor, **wanted, lifetime=lifetime, address=self.address)
        return Response(TokenOut(token).data | {"token": text}, 201)


class TokenDetail(TokenView):
    """One enrolment token."""

    acts = {"GET": Act.MANAGE_TOKENS}
    gives = {"GET": Gives(TokenOut)}

    def get(self, request: Request, slug: str, token_id: int) -> Response:
        return Response(TokenOut(get_object_or_404(self.tokens(), pk=token_id)).data)


class RevokeToken(TokenView):
    """No more clients by this token. Those that it has enrolled stay."""

    verbs = {"POST": "revoke"}
    acts = {"POST": Act.MANAGE_TOKENS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(TokenOut)}

    def post(self, request: Request, slug: str, token_id: int) -> Response:
        self.body()
        token = get_object_or_404(self.tokens(), pk=token_id)
        self.must_match(TokenOut(token).data)
        revoke_token(token, self.actor, address=self.address)
        return Response(TokenOut(token).data)
