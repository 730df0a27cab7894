"""What owners do to webhooks. Each act is in the audit log; a secret is shown once, and is nowhere else in the clear."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts import messages, notify, outbound, signatures
from fedui.alerts.deliveries import PURPOSE
from fedui.alerts.models import Delivery, DeliveryStatus, Webhook
from fedui.audit.services import differences, record
from fedui.errors import DomainError, ErrorCode, NameTaken
from fedui.federations.models import Federation
from fedui.sealing import seal

MOST_WEBHOOKS = 20
MOST_WAITING = 20
"""Messages to one receiver, after which nobody adds another by hand."""


class WebhookRefused(DomainError):
    """A name that can't be, or more than there may be."""

    code = ErrorCode.INVALID_REQUEST


class RedeliveryRefused(DomainError):
    """Only what was given up or delivered is sent again."""

    code = ErrorCode.ILLEGAL_TRANSITION


@transaction.atomic
def create_webhook(
    federation: Federation, actor: User, *, name: str, url: str, address: str | None = None
) -> tuple[Webhook, str]:
    """The webhook, and its secret, which can't be read again. Raises `WebhookRefused`, `BadAddress` or `NameTaken`."""
    Federation.objects.select_for_update(no_key=True).get(pk=federation.pk)
    if federation.webhooks.count() >= MOST_WEBHOOKS:
        raise WebhookRefused(f"A federation has up to {MOST_WEBHOOKS} webhooks.", hint="Change or remove one.")
    outbound.parse(url)
    secret = signatures.new_secret()
    webhook = Webhook.objects.create(
        federation=federation,
        name=_free_name(federation, name, None),
        url=url,
        secret=seal(secret, PURPOSE),
        created_by=actor,
    )
    record(federation, actor, "webhook.created", webhook, address=address, after=_described(webhook))
    return webhook, secret


@transaction.atomic
def change_webhook(
    webhook: Webhook, actor: User, *, name: str, url: str, enabled: bool, address: str | None = None
) -> Webhook:
    """Raises `WebhookRefused`, `BadAddress` or `NameTaken`."""
    outbound.parse(url)
    before = _described(webhook)
    webhook.name, webhook.url, webhook.enabled = _free_name(webhook.federation, name, webhook), url, enabled
    webhook.save(update_fields=["name", "url", "enabled"])
    changes = differences(before, _described(webhook))
    if changes["after"]:
        record(webhook.federation, actor, "webhook.changed", webhook, address=address, **changes)
    return webhook


@transaction.atomic
def rotate_secret(webhook: Webhook, actor: User, *, address: str | None = None) -> str:
    """A new secret. The former one signs beside it for a day, so that the receiver has time."""
    secret = signatures.new_secret()
    webhook.former_secret, webhook.secret = webhook.secret, seal(secret, PURPOSE)
    webhook.rotated_at = timezone.now()
    webhook.save(update_fields=["former_secret", "secret", "rotated_at"])
    record(webhook.federation, actor, "webhook.secret_rotated", webhook, address=address)
    return secret


@transaction.atomic
def remove_webhook(webhook: Webhook, actor: User, *, address: str | None = None) -> None:
    """With its log of deliveries."""
    federation, before, name = webhook.federation, _described(webhook), str(webhook)
    webhook.delete()
    record(federation, actor, "webhook.removed", name, address=address, before=before)


@transaction.atomic
def send_test(webhook: Webhook, actor: User, *, address: str | None = None) -> Delivery:
    """Raises `WebhookRefused`."""
    _check_waiting(webhook.deliveries.all())
    federation = webhook.federation
    delivery = Delivery.objects.create(
        federation=federation, webhook=webhook, subject="Test", body=messages.test_document(federation)
    )
    record(federation, actor, "webhook.tested", webhook, address=address, delivery=str(delivery.pk))
    transaction.on_commit(notify.hint, robust=True)
    return delivery


@transaction.atomic
def redeliver(delivery: Delivery, actor: User, *, address: str | None = None) -> Delivery:
    """The same message under a new id. Raises `RedeliveryRefused` or `WebhookRefused`."""
    if delivery.status not in (DeliveryStatus.DELIVERED, DeliveryStatus.FAILED):
        raise RedeliveryRefused("It is still on its way.", hint="Wait until it is delivered or given up.")
    _check_waiting(
        Delivery.objects.filter(
            federation=delivery.federation_id, webhook=delivery.webhook_id, recipient=delivery.recipient_id
        )
    )
    again = Delivery.objects.create(
        federation=delivery.federation,
        rule=delivery.rule,
        webhook=delivery.webhook,
        recipient=delivery.recipient,
        subject=delivery.subject,
        body=delivery.body,
        redelivery_of=delivery,
    )
    record(
        delivery.federation, actor, "delivery.repeated", delivery.subject, address=address, delivery=str(again.pk),
        repeats=str(delivery.pk),
    )  # fmt: skip
    transaction.on_commit(notify.hint, robust=True)
    return again


def _check_waiting(to_receiver: QuerySet[Delivery]) -> None:
    if to_receiver.filter(status=DeliveryStatus.PENDING).count() >= MOST_WAITING:
        raise WebhookRefused(
            f"{MOST_WAITING} messages or more wait for this receiver already.",
            hint="Its deliveries say what holds them up.",
        )


def _free_name(federation: Federation, name: str, own: Webhook | None) -> str:
    name = " ".join(name.split())
    if not name or len(name) > 80 or not name.isprintable():
        raise WebhookRefused("A webhook has a name of 1 to 80 characters.")
    others = federation.webhooks.exclude(pk=own.pk) if own else federation.webhooks.all()
    if others.filter(name=name).exists():
        raise NameTaken(f"There is a webhook with the name {name} already.", hint="Choose another one.")
    return name


def _described(webhook: Webhook) -> dict[str, Any]:
    """For the audit log: a path may hold a secret of the receiver's."""
    return {"name": webhook.name, "host": urlsplit(webhook.url).netloc, "enabled": webhook.enabled}
