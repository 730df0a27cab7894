"""Webhooks and their deliveries over REST."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.alerts import webhooks
from fedui.alerts.models import Delivery, DeliveryStatus, Webhook
from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act


class WebhookOut(serializers.Serializer[Webhook]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    url = serializers.CharField()
    enabled = serializers.BooleanField()
    rotated_at = serializers.DateTimeField(allow_null=True, help_text="When its secret was last changed.")
    created_at = serializers.DateTimeField()


class NewWebhookOut(WebhookOut):
    secret = serializers.CharField(help_text="What its messages are signed with. Shown this once.")


class NewWebhook(Body):
    name = serializers.CharField(max_length=80)
    url = serializers.CharField(max_length=500, help_text="https, and nothing in private networks.")


class WebhookBody(NewWebhook):
    enabled = serializers.BooleanField(default=True)


class AttemptOut(serializers.Serializer[dict[str, object]]):
    ok = serializers.BooleanField()
    at = serializers.CharField()
    milliseconds = serializers.IntegerField()
    status = serializers.IntegerField(default=None, allow_null=True, help_text="Of the answer; null: there was none.")
    answer = serializers.CharField(default="", help_text="Its beginning.")
    error = serializers.CharField(default="")


class DeliveryOut(serializers.Serializer[Delivery]):
    id = serializers.UUIDField(help_text="The message's `webhook-id`.")
    webhook = serializers.UUIDField(source="webhook_id", allow_null=True, help_text="Null: by e-mail.")
    recipient = serializers.CharField(source="recipient.username", default=None, allow_null=True)
    rule = serializers.IntegerField(source="rule_id", allow_null=True)
    subject = serializers.CharField()
    body = serializers.CharField(help_text="As it is sent.")
    status = serializers.ChoiceField(choices=DeliveryStatus.choices)
    next_at = serializers.DateTimeField(help_text="Of the next attempt, while it waits.")
    attempts = AttemptOut(source="log", many=True)
    redelivery_of = serializers.UUIDField(source="redelivery_of_id", allow_null=True)
    created_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)


class WebhookView(ApiView):
    noun = "webhooks"

    def webhooks(self) -> QuerySet[Webhook]:
        return Webhook.objects.filter(federation=self.membership.federation_id)

    def locked(self, webhook_id: UUID) -> Webhook:
        webhook = get_object_or_404(self.webhooks().select_for_update(), pk=webhook_id)
        self.must_match(WebhookOut(webhook).data)
        return webhook


class WebhookList(WebhookView, ListView):
    """Addresses that are told of alerts."""

    acts = {"GET": Act.MANAGE_WEBHOOKS, "POST": Act.MANAGE_WEBHOOKS}
    takes = {"POST": NewWebhook}
    gives = {"GET": Gives(WebhookOut, many=True), "POST": Gives(NewWebhookOut, 201)}
    refusals = {"POST": (ErrorCode.NAME_TAKEN,)}
    queryset = Webhook.objects.none()
    filterset_fields = ("enabled",)
    ordering_fields = ("name",)
    ordering = "name"

    def rows(self) -> QuerySet[Webhook]:
        return self.webhooks()

    def post(self, request: Request, slug: str) -> Response:
        """Make a webhook. Its secret is in this answer and nowhere else."""
        made, secret = webhooks.create_webhook(self.federation, self.actor, **self.body(), address=self.address)
        return Response(WebhookOut(made).data | {"secret": secret}, 201)


class WebhookDetail(WebhookView):
    """One webhook."""

    acts = {"GET": Act.MANAGE_WEBHOOKS, "PUT": Act.MANAGE_WEBHOOKS, "DELETE": Act.MANAGE_WEBHOOKS}
    takes = {"PUT": WebhookBody}
    gives = {"GET": Gives(WebhookOut), "PUT": Gives(WebhookOut)}
    refusals = {"PUT": (ErrorCode.NAME_TAKEN,)}

    def get(self, request: Request, slug: str, webhook_id: UUID) -> Response:
        return Response(WebhookOut(get_object_or_404(self.webhooks(), pk=webhook_id)).data)

    def put(self, request: Request, slug: str, webhook_id: UUID) -> Response:
        """While it isn't enabled nothing is sent, and what waits is given up."""
        wanted = self.body()
        webhook = webhooks.change_webhook(self.locked(webhook_id), self.actor, **wanted, address=self.address)
        return Response(WebhookOut(webhook).data)

    def delete(self, request: Request, slug: str, webhook_id: UUID) -> Response:
        """With its deliveries."""
        webhooks.remove_webhook(self.locked(webhook_id), self.actor, address=self.address)
        return Response(status=204)


class RotateSecret(WebhookView):
    """A new secret, in this answer and nowhere else. The former one signs beside it for a day."""

    verbs = {"POST": "rotate"}
    acts = {"POST": Act.MANAGE_WEBHOOKS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(NewWebhookOut)}

    def post(self, request: Request, slug: str, webhook_id: UUID) -> Response:
        self.body()
        webhook = self.locked(webhook_id)
        secret = webhooks.rotate_secret(webhook, self.actor, address=self.address)
        return Response(WebhookOut(webhook).data | {"secret": secret})


class TestWebhook(WebhookView):
    """Send a test. What comes of it stands in its delivery."""

    verbs = {"POST": "test"}
    acts = {"POST": Act.MANAGE_WEBHOOKS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(DeliveryOut, 201)}

    def post(self, request: Request, slug: str, webhook_id: UUID) -> Response:
        self.body()
        delivery = webhooks.send_test(self.locked(webhook_id), self.actor, address=self.address)
        return Response(DeliveryOut(delivery).data, 201)


class DeliveryView(ApiView):
    noun = "deliveries"

    def deliveries(self) -> QuerySet[Delivery]:
        found = Delivery.objects.filter(federation=self.membership.federation_id)
        return found.select_related("recipient", "federation", "rule", "webhook")


class DeliveryList(DeliveryView, ListView):
    """Messages, to webhooks and by e-mail, and what became of them; the newest first."""

    acts = {"GET": Act.MANAGE_WEBHOOKS}
    gives = {"GET": Gives(DeliveryOut, many=True)}
    queryset = Delivery.objects.none()
    filterset_fields = ("status", "webhook")
    ordering_fields = ("created_at",)
    ordering = "-created_at"

    def rows(self) -> QuerySet[Delivery]:
        return self.deliveries()


class DeliveryDetail(DeliveryView):
    """One message."""

    acts = {"GET": Act.MANAGE_WEBHOOKS}
    gives = {"GET": Gives(DeliveryOut)}

    def get(self, request: Request, slug: str, delivery_id: UUID) -> Response:
        return Response(DeliveryOut(get_object_or_404(self.deliveries(), pk=delivery_id)).data)


class Redeliver(DeliveryView):
    """The same message again, under a new id."""

    verbs = {"POST": "redeliver"}
    acts = {"POST": Act.MANAGE_WEBHOOKS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(DeliveryOut, 201)}
    refusals = {"POST": (ErrorCode.ILLEGAL_TRANSITION,)}

    def post(self, request: Request, slug: str, delivery_id: UUID) -> Response:
        self.body()
        delivery = get_object_or_404(self.deliveries(), pk=delivery_id)
        self.must_match(DeliveryOut(delivery).data)
        return Response(DeliveryOut(webhooks.redeliver(delivery, self.actor, address=self.address)).data, 201)
