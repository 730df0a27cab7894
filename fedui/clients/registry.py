"""The engine's client registry over the database."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from channels.db import database_sync_to_async
from django.core.exceptions import ValidationError
from django.utils import timezone

from aggregator.ports import AgentInfo, Barred, ClientIdentity, ClientRefused, Renewal, RenewalRefused, Sign
from fedui.audit.origin import AGENT
from fedui.audit.services import record_seldom
from fedui.clients import presence
from fedui.clients.authorities import trust
from fedui.clients.history import VitalsHistory
from fedui.clients.models import Certificate, Client, ClientStatus
from fedui.clients.renewal import renew
from fedui.errors import DomainError
from fedui.metrics.counted import STREAMS
from fedui.runs import live

_BARRED = {
    ClientStatus.ACTIVE: "This client has enrolled again, on another machine or from another folder.",
    ClientStatus.SUSPENDED: "This client is suspended. Ask the federation's operator to reinstate it.",
    ClientStatus.REVOKED: "This client has been revoked by the federation's operator.",
}

_OF_A_CERTIFICATE = (
    "confirmed_at",
    "superseded_at",
    "client__name",
    "client__status",
    "client__federation_id",
    "client__labels",
)
"""Of it and its client, what tells who is calling."""

TELL_SECONDS = 10.0
"""How often browsers hear of a federation's new vitals, at most."""


class DatabaseClientRegistry:
    """Implements `aggregator.ports.ClientRegistry`."""

    def __init__(self) -> None:
        self._history = VitalsHistory()
        self._told: dict[str, float] = {}
        self._streams: set[str] = set()

    async def authenticate(self, client_id: str, certificate_serial: str) -> ClientIdentity:
        return await database_sync_to_async(_authenticate)(client_id, certificate_serial)

    async def barred(self, since: datetime) -> Sequence[Barred]:
        return await database_sync_to_async(_barred)(since)

    async def renew(self, client_id: str, certificate_serial: str, csr_pem: str) -> Renewal:
        return await database_sync_to_async(_renew)(client_id, certificate_serial, csr_pem)

    async def connected(self, client_id: str, session_id: str, info: AgentInfo) -> None:
        await live.clients_changed(await database_sync_to_async(presence.connect)(client_id, session_id, info))
        self._streams.add(session_id)
        STREAMS.set(len(self._streams))

    async def disconnected(self, client_id: str, session_id: str, *, left: bool) -> None:
        self._streams.discard(session_id)
        STREAMS.set(len(self._streams))
        await live.clients_changed(await database_sync_to_async(presence.disconnect)(client_id, session_id, left=left))

    async def availability(self, client_id: str, session_id: str, unavailable: str) -> None:
        await live.clients_changed(await database_sync_to_async(presence.avail)(client_id, session_id, unavailable))

    async def seen(self, signs: Sequence[Sign]) -> Collection[str]:
        newest = await database_sync_to_async(self._write)(signs)
        await self._tell(set(newest.values()))
        return newest.keys()

    def _write(self, signs: Sequence[Sign]) -> Mapping[str, str]:
        newest = presence.write_signs(signs)
        self._history.add(sign for sign in signs if sign.client_id in newest)
        return newest

    async def _tell(self, federations: Collection[str]) -> None:
        """Browsers are told of new figures, but not of each heartbeat."""
        now = time.monotonic()
        for federation_id in federations:
            if now - self._told.get(federation_id, -math.inf) >= TELL_SECONDS:
                self._told[federation_id] = now
                await live.vitals_changed(federation_id)


def _authenticate(client_id: str, serial: str) -> ClientIdentity:
    """Asked at each call of each agent: one query, but for those that are refused."""
    now = timezone.now()
    good = Certificate.objects.good(now).select_related("client").only(*_OF_A_CERTIFICATE)
    try:
        certificate = good.filter(client__pk=client_id, serial=serial).first()
        client = certificate.client if certificate else Client.objects.get(pk=client_id)
    except (Client.DoesNotExist, ValidationError):
        raise ClientRefused(
            "The server doesn't know this client. Enrol again with a new token.", for_good=True
        ) from None
    if certificate is None or client.status != ClientStatus.ACTIVE:
        refusal = _refusal_of(client)
        record_seldom(client.federation, AGENT, "client.connection_refused", client, reason=str(refusal))
        raise refusal
    if certificate.confirmed_at is None and certificate.superseded_at is None:
        certificate.confirm(now)
    return ClientIdentity(str(client.pk), client.name, str(client.federation_id), client.labels)


def _refusal_of(client: Client) -> ClientRefused:
    if client.status == ClientStatus.ACTIVE:
        return ClientRefused(
            "This certificate has been revoked or replaced by a newer one. Enrol again with a new token.", for_good=True
        )
    return ClientRefused(_BARRED[ClientStatus(client.status)], for_good=client.status == ClientStatus.REVOKED)


def _barred(since: datetime) -> list[Barred]:
    return [_bar(client) for client in Client.objects.filter(barred_at__gt=since)]


def _bar(client: Client) -> Barred:
    status = ClientStatus(client.status)
    active = status == ClientStatus.ACTIVE
    good = client.certificates.filter(revoked_at=None).values_list("serial", flat=True) if active else ()
    assert client.barred_at
    return Barred(
        client_id=str(client.pk),
        at=client.barred_at,
        reason=_BARRED[status],
        active=active,
        may_return=status == ClientStatus.SUSPENDED,
        keep=frozenset(good),
    )


def _renew(client_id: str, serial: str, csr_pem: str) -> Renewal:
    try:
        certificate = renew(client_id, serial, csr_pem)
    except DomainError as error:
        refused = Client.objects.select_related("federation").get(pk=client_id)
        record_seldom(
            refused.federation, AGENT, "certificate.renewal_refused", refused, code=error.code.value, reason=str(error)
        )
        raise RenewalRefused(f"{error} {error.hint}".strip()) from error
    return Renewal(certificate.pem, trust().bundle_pem.decode())
