"""Renewal of clients' certificates, asked for by agents over mutual TLS."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from fedui.audit.origin import AGENT
from fedui.audit.services import record
from fedui.clients import pki
from fedui.clients.models import Certificate, Client, ClientStatus
from fedui.errors import DomainError, ErrorCode

KEPT = timedelta(days=90)
"""Certificates are listed for so long after their end. The audit log keeps every one."""


class RenewalTooSoon(DomainError):
    """The present certificate has hardly been used: an agent that asks again and again gets no more."""

    code = ErrorCode.RENEWAL_TOO_SOON

    def __init__(self) -> None:
        super().__init__("This certificate is too new to be renewed.", hint="Set the machine's clock (NTP).")


class RenewalBarred(DomainError):
    """The client was suspended, revoked or enrolled again since it authenticated itself, or has renewed already."""

    code = ErrorCode.ADMISSION_REFUSED

    def __init__(self) -> None:
        super().__init__("This certificate is renewed no longer.", hint="Ask the federation's operator.")


@transaction.atomic
def renew(client_id: str, serial: str, csr_pem: str) -> Certificate:
    """A certificate for a new key of the client, which stays unused until it confirms it.

    The caller has authenticated the client by the certificate `serial`. Raises `SigningRequestRefused`, `RenewalTooSoon` or
    `RenewalBarred`.
    """
    # Renewals of one client, and acts that bar it, wait for each other here: what was true before is looked at again.
    client = Client.objects.select_for_update(of=("self",)).select_related("federation").get(pk=client_id)
    now = timezone.now()
    present = client.certificates.good(now).filter(serial=serial, superseded_at=None).first()
    if client.status != ClientStatus.ACTIVE or present is None:
        raise RenewalBarred
    if now - present.issued_at < pki.client_life() / 10:
        raise RenewalTooSoon
    spent = client.certificates.filter(admission=None)
    spent.filter(confirmed_at=None).exclude(pk=present.pk).delete()  # their answers never arrived
    spent.filter(not_after__lt=now - KEPT).delete()
    certificate = pki.issue_client_certificate(csr_pem, client)
    record(
        client.federation,
        AGENT,
        "certificate.renewed",
        client,
        serial=certificate.serial,
        fingerprint=certificate.fingerprint,
        until=certificate.not_after.isoformat(timespec="seconds"),
        replaces=serial,
    )
    return certificate
