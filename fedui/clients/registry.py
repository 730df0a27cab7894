"""The engine's client registry over the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from channels.db import database_sync_to_async
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from aggregator.ports import AgentInfo, AppOffer, Barred, ClientIdentity, ClientRefused, Renewal, RenewalRefused, Sign
from fedui.audit.origin import AGENT
from fedui.audit.services import record, record_seldom
from fedui.catalog.models import App
from fedui.clients.authorities import trust
from fedui.clients.models import Certificate, Client, ClientStatus
from fedui.clients.renewal import renew
from fedui.errors import DomainError
from fedui.runs import live
from fedui.scalars import scalars_to_json

_BARRED = {
    ClientStatus.ACTIVE: "This client has enrolled again, on another machine or from another folder.",
    ClientStatus.SUSPENDED: "This client is suspended. Ask the federation's operator to reinstate it.",
    ClientStatus.REVOKED: "This client has been revoked by the federation's operator.",
}

MOST_APPS = 1_000
"""Of one federation, all versions together: an agent can't fill the database with invented ones."""
RECONNECT_WITHIN = timedelta(hours=1)
"""A connection sooner than this after the last sign of life counts as a reconnect."""


class DatabaseClientRegistry:
    """Implements `aggregator.ports.ClientRegistry`."""

    async def authenticate(self, client_id: str, certificate_serial: str) -> ClientIdentity:
        return await database_sync_to_async(_authenticate)(client_id, certificate_serial)

    async def barred(self, since: datetime) -> Sequence[Barred]:
        return await database_sync_to_async(_barred)(since)

    async def renew(self, client_id: str, certificate_serial: str, csr_pem: str) -> Renewal:
        return await database_sync_to_async(_renew)(client_id, certificate_serial, csr_pem)

    async def connected(self, client_id: str, info: AgentInfo) -> None:
        await live.clients_changed(await database_sync_to_async(_connected)(client_id, info))

    async def disconnected(self, client_id: str) -> None:
        await live.clients_changed(await database_sync_to_async(_disconnected)(client_id))

    async def availability(self, client_id: str, unavailable: str) -> None:
        await live.clients_changed(await database_sync_to_async(_availability)(client_id, unavailable))

    async def seen(self, signs: Sequence[Sign]) -> None:
        await database_sync_to_async(_seen)(signs)


def _authenticate(client_id: str, serial: str) -> ClientIdentity:
    try:
        client = Client.objects.get(pk=client_id)
    except (Client.DoesNotExist, ValidationError):
        raise ClientRefused(
            "The server doesn't know this client. Enrol again with a new token.", for_good=True
        ) from None
    try:
        return _identified(client, serial)
    except ClientRefused as refusal:
        record_seldom(client.federation, AGENT, "client.connection_refused", client, reason=str(refusal))
        raise


def _identified(client: Client, serial: str) -> ClientIdentity:
    if client.status != ClientStatus.ACTIVE:
        revoked = client.status == ClientStatus.REVOKED
        raise ClientRefused(_BARRED[ClientStatus(client.status)], for_good=revoked)
    now = timezone.now()
    certificate = Certificate.objects.good(now).filter(client=client, serial=serial).first()
    if certificate is None:
        raise ClientRefused(
            "This certificate has been revoked or replaced by a newer one. Enrol again with a new token.", for_good=True
        )
    if certificate.confirmed_at is None and certificate.superseded_at is None:
        certificate.confirm(now)
    return ClientIdentity(str(client.pk), client.name, str(client.federation_id), client.labels)


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


@transaction.atomic
def _connected(client_id: str, info: AgentInfo) -> str:
    client = Client.objects.select_for_update().get(pk=client_id)
    now = timezone.now()
    if client.last_seen_at and now - client.last_seen_at < RECONNECT_WITHIN:
        client.reconnects = F("reconnects") + 1
    client.connected, client.connected_at, client.last_seen_at = True, now, now
    client.unavailable = info.unavailable
    client.agent_version, client.platform = info.agent_version, info.platform
    client.protocol_minor = info.protocol_minor
    if info.apps:  # `fedagent doctor` knocks without any; what the agent offers and tells stays known
        client.properties = scalars_to_json(info.properties)
        client.apps = [_describe(client, offer) for offer in info.apps]
    client.save()
    names = [offer.name for offer in info.apps]
    for app in App.objects.filter(federation=client.federation_id, name__in=names, first_offered_at__gte=now).order_by(
        "pk"
    ):
        record(client.federation, AGENT, "app.offered_first", app, client=client.name)
    return str(client.federation_id)


def _describe(client: Client, offer: AppOffer) -> dict[str, object]:
    """What the agent offers, and whether its model is the one that the federation knows under this name and version."""
    known = App.objects.filter(federation_id=client.federation_id)
    app = known.filter(name=offer.name, version=offer.version).first()
    if app is None and known.count() < MOST_APPS:
        app, _ = known.get_or_create(
            federation_id=client.federation_id,
            name=offer.name,
            version=offer.version,
            defaults={"signature": offer.signature.to_json()},
        )
    full = f"The federation knows {MOST_APPS:,} apps already, and this is none of them"
    difference = app.model_signature.difference(offer.signature) if app else full
    return {
        "name": offer.name,
        "version": offer.version,
        "framework": offer.framework,
        "problem": difference,
        "columns": list(offer.columns),
    }


def _disconnected(client_id: str) -> str:
    Client.objects.filter(pk=client_id).update(connected=False, last_seen_at=timezone.now())
    return str(Client.objects.values_list("federation_id", flat=True).get(pk=client_id))


def _availability(client_id: str, unavailable: str) -> str:
    Client.objects.filter(pk=client_id).update(unavailable=unavailable)
    return str(Client.objects.values_list("federation_id", flat=True).get(pk=client_id))


@transaction.atomic
def _seen(signs: Sequence[Sign]) -> None:
    by_id = {sign.client_id: sign for sign in signs}
    clients = Client.objects.in_bulk(list(by_id))
    for key, client in clients.items():
        sign = by_id[str(key)]
        client.last_seen_at, client.cpu_fraction, client.memory_bytes = sign.at, sign.cpu_fraction, sign.memory_bytes
    Client.objects.bulk_update(clients.values(), ["last_seen_at", "cpu_fraction", "memory_bytes"])
