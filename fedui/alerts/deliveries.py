"""Messages that wait are sent, tried again, and given up. Whichever process takes one holds it for a while; others leave it alone.

A process that is lost in the middle leaves a message that may have arrived: it is sent again, under the same id, by which a receiver
knows it.
"""

from __future__ import annotations

import logging
import random
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import Count
from django.utils import timezone

from fedui.alerts import outbound, signatures
from fedui.alerts.models import Delivery, DeliveryStatus, Webhook
from fedui.errors import DomainError
from fedui.federations.models import Membership
from fedui.metrics.counted import ATTEMPTS
from fedui.sealing import unseal

logger = logging.getLogger(__name__)

PURPOSE = "fedui.webhook"
CLAIM = timedelta(seconds=60)
"""Longer than any attempt takes."""
MOST_AT_ONCE = 4
"""Attempts under way, of all processes together: slow receivers leave threads to others."""
MOST_OF_ONE = 3
"""Of one federation: however slow its receivers and however many messages wait for them, those of others go out."""
MOST_ATTEMPTS = 10
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=10), timedelta(hours=2)
"""Doubled each time: the last attempt comes after about four hours."""
FORMER_SECRET_SIGNS = timedelta(days=1)
EXCERPT = 2_000
BUDGET_SECONDS = 20.0
"""How long one task goes on sending."""


def deliver_due() -> int:
    """Send what is due, one after the other. Tells how many attempts were made."""
    ends_at = time.monotonic() + BUDGET_SECONDS
    made = 0
    while time.monotonic() < ends_at and (delivery := claim(timezone.now())):
        attempt(delivery)
        made += 1
    return made


def claim(now: datetime) -> Delivery | None:
    """A delivery that is due, and from now on this process's. A webhook gets one at a time."""
    for pk, webhook_id in _candidates(now):
        with transaction.atomic():
            if webhook_id:
                Webhook.objects.select_for_update().filter(pk=webhook_id).first()
                if Delivery.objects.under_way(now).filter(webhook=webhook_id).exists():
                    continue
            taken = Delivery.objects.due(now).filter(pk=pk)
            if taken.update(status=DeliveryStatus.SENDING, claimed_until=now + CLAIM):
                return Delivery.objects.select_related("webhook", "recipient", "federation").get(pk=pk)
    return None


def _candidates(now: datetime) -> list[tuple[UUID, UUID | None]]:
    under_way = Delivery.objects.under_way(now)
    if under_way.count() >= MOST_AT_ONCE:
        return []
    busy = under_way.exclude(webhook=None).values("webhook")
    served = under_way.order_by().values("federation").annotate(number=Count("pk")).filter(number__gte=MOST_OF_ONE)
    due = Delivery.objects.due(now).exclude(webhook__in=busy).exclude(federation__in=served.values("federation"))
    return list(due.order_by("next_at", "pk").values_list("pk", "webhook")[:50])


def attempt(delivery: Delivery) -> None:
    """Send it once, and write down what came of it."""
    begun = time.monotonic()
    try:
        entry = _send(delivery)
    except (outbound.NotReached, DomainError) as error:
        entry = {"ok": False, "error": str(error)}
    except Exception as error:  # whatever a mail server or its library raises
        logger.warning("A delivery could not be sent: %s", error, extra={"delivery": str(delivery.pk)})
        entry = {"ok": False, "error": f"{type(error).__name__}: {error}"[:EXCERPT]}
    ATTEMPTS.labels("webhook" if delivery.webhook_id else "email", "ok" if entry["ok"] else "failed").inc()
    entry |= {"at": timezone.now().isoformat(), "milliseconds": round(1000 * (time.monotonic() - begun))}
    _settle(delivery, entry)


def _settle(delivery: Delivery, entry: dict[str, Any]) -> None:
    now = timezone.now()
    attempts = delivery.attempts + 1
    after: dict[str, Any] = {"attempts": attempts, "claimed_until": None, "log": [*delivery.log, entry]}
    if entry["ok"]:
        after |= {"status": DeliveryStatus.DELIVERED, "ended_at": now}
    elif entry.get("for_good") or attempts >= MOST_ATTEMPTS:
        after |= {"status": DeliveryStatus.FAILED, "ended_at": now}
    else:
        after |= {"status": DeliveryStatus.PENDING, "next_at": now + pause_after(attempts)}
    Delivery.objects.filter(pk=delivery.pk, status=DeliveryStatus.SENDING, claimed_until=delivery.claimed_until).update(
        **after
    )


def pause_after(attempts: int) -> timedelta:
    """Before the next attempt: doubled each time, and between a half and the whole of it by chance."""
    longest: timedelta = min(FIRST_RETRY * 2 ** (attempts - 1), LONGEST_RETRY)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # jitter is no secret


def _send(delivery: Delivery) -> dict[str, Any]:
    return _to_webhook(delivery, delivery.webhook) if delivery.webhook else _by_email(delivery)


def _to_webhook(delivery: Delivery, webhook: Webhook) -> dict[str, Any]:
    if not webhook.enabled:
        return {"ok": False, "for_good": True, "error": "The webhook was switched off."}
    body = delivery.body.encode()
    headers = {"Content-Type": "application/json", "User-Agent": "FedUI-Webhook/1", "Connection": "close"}
    headers |= signatures.headers(_secrets(webhook), str(delivery.pk), timezone.now(), body)
    answer = outbound.post(webhook.url, headers, body)
    entry: dict[str, Any] = {"ok": 200 <= answer.status < 300, "status": answer.status}
    if answer.body:
        text = answer.body.decode("utf-8", "replace")[:EXCERPT]
        entry["answer"] = "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)
        entry["answer_cut"] = answer.cut or len(answer.body) > EXCERPT
    if 300 <= answer.status < 400:
        entry["error"] = "It redirects, which is not followed. Give the webhook its final address."
    elif not entry["ok"]:
        entry["error"] = f"It answered {answer.status}."
    entry["for_good"] = answer.status == 410
    return entry


def _secrets(webhook: Webhook) -> list[str]:
    found = [unseal(webhook.secret, PURPOSE)]
    if webhook.former_secret and webhook.rotated_at and webhook.rotated_at > timezone.now() - FORMER_SECRET_SIGNS:
        found.append(unseal(webhook.former_secret, PURPOSE))
    return found


def _by_email(delivery: Delivery) -> dict[str, Any]:
    """To whom was a member when it was written, and still is."""
    member = delivery.recipient
    if member is None or not member.is_active or not member.email:
        return {"ok": False, "for_good": True, "error": "The account is deactivated or has no address."}
    if not Membership.objects.filter(user=member, federation=delivery.federation_id).exists():
        return {"ok": False, "for_good": True, "error": "They are no member any more."}
    EmailMessage(subject=f"FedUI: {delivery.subject}", body=delivery.body, to=[member.email]).send()
    return {"ok": True}
