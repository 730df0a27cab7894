"""Webhooks lead nowhere inside, and a receiver takes no more of the server than it is given."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import pytest

from fedui.alerts import outbound
from tests.fedui.alerts.conftest import resolves_to
from tests.support.receiver import HOST, Receiver, flood, reply, trickle


def test_a_message_arrives_under_the_name_that_was_resolved_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolves_to(monkeypatch, "127.0.0.1")
    answer = outbound.post(receiver.url, {"Content-Type": "application/json"}, b"{}")

    assert (answer.status, answer.body, answer.cut) == (200, b"thanks", False)
    assert asked == [HOST] and receiver.sni == [HOST]
    [(headers, body)] = receiver.got
    assert body == b"{}" and headers["Host"] == f"{HOST}:{receiver.port}"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fec0::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:0:1::f5ff:fffe",
    ],
)  # fmt: skip
def test_no_address_inside_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Any, address: str
) -> None:
    settings.WEBHOOK_NETWORKS = []
    for resolved in ([address], ["93.184.216.34", address]):
        resolves_to(monkeypatch, *resolved)
        with pytest.raises(outbound.NotReached, match="private or reserved"):
            outbound.post(receiver.url, {}, b"{}")
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(outbound.BadAddress, match="private or reserved"):
        outbound.parse(f"https://{literal}/")
    assert receiver.got == []


def test_the_installation_allows_networks_and_no_others(settings: Any) -> None:
    settings.WEBHOOK_NETWORKS = [ipaddress.ip_network("10.20.0.0/16")]
    for address, allowed in {"10.20.3.4": True, "::ffff:10.20.3.4": True, "10.21.0.1": False, "1.1.1.1": True}.items():
        assert outbound.is_allowed(ipaddress.ip_address(address)) is allowed


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.org/", "ftp://hooks.example.org/", "https://user:secret@hooks.example.org/", "https:///x",
        "//hooks.example.org",
        "https://hooks.example.org/#x", "https://hooks.example.org:99999/", "https://hooks.example.org/ x", "https://hööks.example.org/",
        "https://hooks.example.org/\r\nX: y", "https://[::1", "https://localhost/", f"https://{HOST}/{'x' * 500}", "", "https://",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    with pytest.raises(outbound.BadAddress) as refused:
        outbound.parse(url)
    assert refused.value.hint


def test_a_redirect_is_an_answer_and_not_followed(receiver: Receiver) -> None:
    receiver.answer = lambda request: reply(request, 302, Location="https://127.0.0.1/admin/")
    assert outbound.post(receiver.url, {}, b"{}").status == 302
    assert len(receiver.got) == 1


def test_gigabytes_are_left_unread(receiver: Receiver) -> None:
    receiver.answer = flood
    begun = time.monotonic()
    answer = outbound.post(receiver.url, {}, b"{}")
    assert answer.cut and len(answer.body) == outbound.MOST_BYTES
    assert time.monotonic() - begun < outbound.TOTAL_SECONDS


def test_who_trickles_is_left(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; the whole doesn't."""
    receiver.answer = trickle
    monkeypatch.setattr(outbound, "TOTAL_SECONDS", 0.6)
    begun = time.monotonic()
    with pytest.raises(outbound.NotReached, match="no whole answer"):
        outbound.post(receiver.url, {}, b"{}")
    assert time.monotonic() - begun < 5


def test_a_certificate_of_another_is_refused(receiver: Receiver, settings: Any) -> None:
    settings.WEBHOOK_CA_FILE = ""
    with pytest.raises(outbound.NotReached, match="certificate isn’t trusted"):
        outbound.post(receiver.url, {}, b"{}")


def test_nobody_there(receiver: Receiver) -> None:
    with pytest.raises(outbound.NotReached):
        outbound.post(f"https://{HOST}:1/", {}, b"{}")
    with pytest.raises(outbound.NotReached, match="can’t be resolved"):
        outbound.post("https://nobody.invalid/", {}, b"{}")
