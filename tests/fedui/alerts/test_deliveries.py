"""Webhooks and e-mails: signed, tried again, given up, sent once by however many workers; and no run waits for them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from fedui.accounts.models import User
from fedui.alerts import deliveries, webhooks
from fedui.alerts.models import Delivery, DeliveryStatus, Webhook
from fedui.audit.models import AuditEvent
from fedui.federations.models import Federation, Role
from fedui.federations.services import remove_member
from tests.support.domain import a_federation, a_member, a_user
from tests.support.receiver import Receiver, reply

pytestmark = pytest.mark.django_db


def a_webhook(federation: Federation, owner: User, receiver: Receiver) -> tuple[Webhook, str]:
    return webhooks.create_webhook(federation, owner, name="ops", url=receiver.url)


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As docs/alerts.md tells receivers to check."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(hmac.compare_digest(expected, one) for one in headers["webhook-signature"].split())


def test_a_message_is_signed_and_its_secret_nowhere(federation: Federation, owner: User, receiver: Receiver) -> None:
    webhook, secret = a_webhook(federation, owner, receiver)
    webhooks.send_test(webhook, owner)
    assert deliveries.deliver_due() == 1

    [(headers, body)] = receiver.got
    assert is_signed(secret, headers, body)
    assert not is_signed(secret, headers, body + b" ")
    assert abs(int(headers["webhook-timestamp"]) - timezone.now().timestamp()) < 60
    assert json.loads(body)["type"] == "test"
    delivery = Delivery.objects.get()
    assert delivery.status == DeliveryStatus.DELIVERED and headers["webhook-id"] == str(delivery.pk)
    assert delivery.last["status"] == 200 and delivery.last["answer"] == "thanks"

    kept = repr([list(model.objects.values_list()) for model in (Webhook, Delivery, AuditEvent)])
    assert secret.removeprefix("whsec_") not in kept
    assert "key=1" not in repr(list(AuditEvent.objects.values_list()))


def test_after_a_new_secret_both_sign_for_a_day(federation: Federation, owner: User, receiver: Receiver) -> None:
    webhook, old = a_webhook(federation, owner, receiver)
    new = webhooks.rotate_secret(webhook, owner)
    for age, signed_by_old in ((timedelta(0), True), (timedelta(days=1, minutes=1), False)):
        Webhook.objects.update(rotated_at=timezone.now() - age)
        webhooks.send_test(webhook, owner)
        deliveries.deliver_due()
        headers, body = receiver.got[-1]
        assert is_signed(new, headers, body) and is_signed(old, headers, body) is signed_by_old


def test_failures_are_tried_again_with_growing_pauses_and_given_up(
    federation: Federation, owner: User, receiver: Receiver
) -> None:
    receiver.answer = lambda request: reply(request, 503, b"later" + b"\x00\x1b[31m" + b"x" * 20_000)
    webhook, _ = a_webhook(federation, owner, receiver)
    webhooks.send_test(webhook, owner)
    pauses = []
    for _ in range(deliveries.MOST_ATTEMPTS):
        assert deliveries.deliver_due() == 1
        delivery = Delivery.objects.get()
        pauses.append((delivery.next_at - timezone.now()).total_seconds())
        assert deliveries.deliver_due() == 0  # not before its time
        Delivery.objects.update(next_at=timezone.now())
    assert delivery.status == DeliveryStatus.FAILED and delivery.attempts == deliveries.MOST_ATTEMPTS
    for number, pause in enumerate(pauses[:-1]):
        longest = min(10 * 2**number, 7200)
        assert longest / 2 - 5 <= pause <= longest
    assert delivery.last["error"] == "It answered 503." and delivery.last["answer_cut"]
    assert len(str(delivery.last["answer"])) <= deliveries.EXCERPT and "\x1b" not in str(delivery.last["answer"])

    receiver.answer = lambda request: reply(request, 204)
    again = webhooks.redeliver(delivery, owner)
    assert deliveries.deliver_due() == 1
    again.refresh_from_db()
    assert again.status == DeliveryStatus.DELIVERED and again.pk != delivery.pk
    assert receiver.got[-1][1] == receiver.got[0][1]


@pytest.mark.parametrize(
    ("status", "ends"), [(200, "delivered"), (299, "delivered"), (301, "pending"), (404, "pending"), (410, "failed")]
)
def test_what_an_answer_means(federation: Federation, owner: User, receiver: Receiver, status: int, ends: str) -> None:
    receiver.answer = lambda request: reply(request, status, Location="https://127.0.0.1/")
    webhook, _ = a_webhook(federation, owner, receiver)
    delivery = webhooks.send_test(webhook, owner)
    deliveries.deliver_due()
    delivery.refresh_from_db()
    assert delivery.status == ends and len(receiver.got) == 1
    with pytest.raises(webhooks.RedeliveryRefused) if ends == "pending" else pytest.raises(AssertionError):
        webhooks.redeliver(delivery, owner)
        raise AssertionError


def test_a_webhook_that_is_switched_off_gets_nothing(federation: Federation, owner: User, receiver: Receiver) -> None:
    webhook, _ = a_webhook(federation, owner, receiver)
    webhooks.send_test(webhook, owner)
    webhooks.change_webhook(webhook, owner, name="ops", url=receiver.url, enabled=False)
    deliveries.deliver_due()
    assert receiver.got == [] and Delivery.objects.get().status == DeliveryStatus.FAILED


def test_a_process_that_is_lost_leaves_its_message_to_another(
    federation: Federation, owner: User, receiver: Receiver
) -> None:
    webhook, _ = a_webhook(federation, owner, receiver)
    webhooks.send_test(webhook, owner)
    lost = deliveries.claim(timezone.now())
    assert lost and deliveries.deliver_due() == 0
    Delivery.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert deliveries.deliver_due() == 1
    deliveries._settle(lost, {"ok": False, "error": "It comes back, too late."})
    assert Delivery.objects.get().status == DeliveryStatus.DELIVERED


@pytest.mark.django_db(transaction=True)
def test_several_workers_send_each_message_once_and_a_slow_receiver_holds_one_of_them(receiver: Receiver) -> None:
    owner = a_user("owner")
    federation = a_federation("hearts", owner)
    release = threading.Event()
    slow, _ = webhooks.create_webhook(federation, owner, name="slow", url=receiver.url + "&slow")
    quick, _ = webhooks.create_webhook(federation, owner, name="quick", url=receiver.url)

    def answer(request: Any) -> None:
        if request.path.endswith("&slow"):
            release.wait(8)
        reply(request, 200)

    receiver.answer = answer
    for webhook in (slow, quick):
        for _ in range(4):
            webhooks.send_test(webhook, owner)

    def work() -> int:
        try:
            return deliveries.deliver_due()
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as workers:
        at_work = [workers.submit(work) for _ in range(3)]
        until(lambda: quick.deliveries.filter(status=DeliveryStatus.DELIVERED).count() == 4)
        assert slow.deliveries.filter(status=DeliveryStatus.SENDING).count() == 1
        release.set()
        sent = sum(one.result() for one in at_work)
    sent += work()
    assert sent == 8 and len(receiver.got) == 8
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 8


def test_one_federation_leaves_room_for_the_messages_of_others(federation: Federation, owner: User) -> None:
    other = a_federation("lungs", a_user("other"))
    for number in range(2 * deliveries.MOST_AT_ONCE):
        flood, _ = webhooks.create_webhook(federation, owner, name=f"flood {number}", url="https://hooks.example.org/")
        webhooks.send_test(flood, owner)
    alone, _ = webhooks.create_webhook(other, owner, name="ops", url="https://hooks.example.org/")
    webhooks.send_test(alone, owner)

    claimed = [found for _ in range(6) if (found := deliveries.claim(timezone.now()))]

    assert len(claimed) == deliveries.MOST_AT_ONCE
    assert claimed[-1].webhook == alone


def test_no_more_wait_for_a_receiver_than_somebody_can_have_meant(federation: Federation, owner: User) -> None:
    webhook, _ = webhooks.create_webhook(federation, owner, name="ops", url="https://hooks.example.org/")
    delivery = webhooks.send_test(webhook, owner)
    Delivery.objects.update(status=DeliveryStatus.FAILED)
    delivery.refresh_from_db()
    for _ in range(webhooks.MOST_WAITING):
        webhooks.redeliver(delivery, owner)
    with pytest.raises(webhooks.WebhookRefused, match="wait for this receiver"):
        webhooks.redeliver(delivery, owner)
    with pytest.raises(webhooks.WebhookRefused, match="wait for this receiver"):
        webhooks.send_test(webhook, owner)


def test_mail_goes_to_who_is_still_a_member(federation: Federation, owner: User) -> None:
    operator = a_member(federation, Role.OPERATOR)
    User.objects.filter(pk=operator.pk).update(email="op@example.org")
    for _ in range(2):
        Delivery.objects.create(federation=federation, recipient=operator, subject="A is offline", body="Since noon.")
        deliveries.deliver_due()
        if member := federation.memberships.filter(user=operator).first():
            remove_member(member, owner)
    [message] = mail.outbox
    assert message.subject == "FedUI: A is offline" and message.to == ["op@example.org"]
    assert sorted(Delivery.objects.values_list("status", flat=True)) == ["delivered", "failed"]


def until(happens: Callable[[], bool]) -> None:
    pause, deadline = threading.Event(), timezone.now() + timedelta(seconds=20)
    while not happens():
        assert timezone.now() < deadline
        pause.wait(0.02)
