"""API keys over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act
from fedui.keys.models import ApiKey
from fedui.keys.scopes import Scope
from fedui.keys.services import create_key, revoke_key

MAX_DAYS = 366


class KeyOut(serializers.Serializer[ApiKey]):
    id = serializers.IntegerField()
    prefix = serializers.CharField(help_text="The beginning of its text, by which logs know it.")
    name = serializers.CharField()
    user = serializers.CharField(source="user.username", help_text="As whom it acts.")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices))
    state = serializers.ChoiceField(choices=["usable", "expired", "revoked"])
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="Within ten minutes.")
    revoked_at = serializers.DateTimeField(allow_null=True)


class NewKeyOut(KeyOut):
    key = serializers.CharField(help_text="Shown this once.")


class NewKey(Body):
    name = serializers.CharField(max_length=120)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=Scope.choices), min_length=1, max_length=20)
    days = serializers.IntegerField(min_value=1, max_value=MAX_DAYS, default=90, help_text="Until it expires.")


class KeyView(ApiView):
    noun = "keys"

    def keys(self) -> QuerySet[ApiKey]:
        return ApiKey.objects.visible_to(self.membership).select_related("user", "federation")


class KeyList(KeyView, ListView):
    """The API keys of the caller in this federation; of all its members for those who manage them."""

    acts = {"GET": Act.HAVE_KEYS, "POST": Act.HAVE_KEYS}
    takes = {"POST": NewKey}
    gives = {"GET": Gives(KeyOut, many=True), "POST": Gives(NewKeyOut, 201)}
    refusals = {"POST": (ErrorCode.API_KEY_REFUSED,)}
    queryset = ApiKey.objects.none()
    ordering_fields = ("id", "expires_at")

    def rows(self) -> QuerySet[ApiKey]:
        return self.keys()

    def post(self, request: Request, slug: str) -> Response:
        """Make a key that acts as the caller. Its text is in this answer and nowhere else. A key makes none that may more than it."""
        wanted = self.body()
        scopes = [Scope(name) for name in dict.fromkeys(wanted["scopes"])]
        made, text = create_key(
            self.membership, name=wanted["name"], scopes=scopes, lifetime=timedelta(days=wanted["days"]),
            by=self.api_key, address=self.address,
        )  # fmt: skip
        body: dict[str, Any] = KeyOut(made).data | {"key": text}
        return Response(body, 201)


class KeyDetail(KeyView):
    """One API key."""

    acts = {"GET": Act.HAVE_KEYS}
    gives = {"GET": Gives(KeyOut)}

    def get(self, request: Request, slug: str, key_id: int) -> Response:
        return Response(KeyOut(get_object_or_404(self.keys(), pk=key_id)).data)


class RevokeKey(KeyView):
    """End a key, at once and for good."""

    verbs = {"POST": "revoke"}
    acts = {"POST": Act.HAVE_KEYS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(KeyOut)}

    def post(self, request: Request, slug: str, key_id: int) -> Response:
        self.body()
        key = get_object_or_404(self.keys(), pk=key_id)
        self.must_match(KeyOut(key).data)
        revoke_key(key, self.actor, address=self.address)
        return Response(KeyOut(key).data)
