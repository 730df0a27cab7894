"""What rules find about clients and machines."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Window
from django.db.models.functions import Lag

from fedui.alerts.occurrences import Occurrence, about_client
from fedui.clients.authorities import trust
from fedui.clients.history import KEPT
from fedui.clients.models import Certificate, Client, ClientStatus, Connection, VitalsSample
from fedui.federations.models import Federation
from fedui.web.figures import byte_size

AUTHORITY_AHEAD = timedelta(days=30)
"""An authority is rotated by people, in steps: they need some time."""
_EVERY_CLIENT = max(KEPT)
"""Length of the samples that reach back furthest."""


def offline(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    """Stretches of `minutes` and more without a stream of an active client: between two of them, and since the last sign."""
    patience = timedelta(minutes=given["minutes"])
    title = "{} is offline"
    before = Window(Lag("closed_at"), partition_by="client", order_by="opened_at")
    active = Connection.objects.filter(client__federation=federation, client__status=ClientStatus.ACTIVE)
    gaps = active.annotate(left=before).filter(opened_at__gt=since, left__lt=F("opened_at") - patience)
    for connection in gaps.select_related("client").order_by("opened_at"):
        client, left = connection.client, connection.left
        yield Occurrence(
            about_client(client), left + patience, connection.opened_at, title.format(client.name), client=client
        )
    away = federation.clients.filter(
        status=ClientStatus.ACTIVE, last_seen_at__lte=now - patience, lease_expires_at__lte=now
    )
    for client in away:
        assert client.last_seen_at
        detail = f"Its last sign of life was at {client.last_seen_at:%-d %b %Y, %H:%M} UTC."
        at = client.last_seen_at + patience
        yield Occurrence(about_client(client), at, None, title.format(client.name), detail, client=client)


def expiring(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    """Certificates that get old before a newer one is used, and authorities."""
    ahead = timedelta(hours=given["hours"])
    used = Certificate.objects.filter(
        client__federation=federation, client__status=ClientStatus.ACTIVE, revoked_at=None, not_after__gt=since,
    ).select_related("client")  # fmt: skip
    of_client: dict[Client, list[Certificate]] = defaultdict(list)
    for certificate in used.order_by("issued_at", "pk"):
        of_client[certificate.client].append(certificate)
    for client, certificates in of_client.items():
        for certificate, following in zip(certificates, [*certificates[1:], None], strict=True):
            begins = certificate.not_after - ahead
            renewed = certificate.superseded_at or (following.issued_at if following else None)
            if since < begins <= now and (renewed is None or renewed > begins):
                yield _expiring_client(client, certificate, begins, renewed)
    for authority in filter(None, (trust().issuer, trust().other)):
        expires = authority.certificate.not_valid_after_utc
        if expires - AUTHORITY_AHEAD <= now:
            detail = f"It expires at {expires:%-d %b %Y, %H:%M} UTC. Rotate it: manage.py rotate_ca."
            title = "The installation’s certificate authority is about to expire"
            yield Occurrence(f"authority:{authority.name}", expires - AUTHORITY_AHEAD, None, title, detail)


def _expiring_client(client: Client, certificate: Certificate, at: datetime, renewed: datetime | None) -> Occurrence:
    detail = (
        f"It expires at {certificate.not_after:%-d %b %Y, %H:%M} UTC. Agents renew by themselves at two thirds of a "
        "certificate’s life: look whether this one runs and reaches the server."
    )
    title = f"The certificate of {client.name} is about to expire"
    return Occurrence(about_client(client), at, renewed, title, detail, client=client)


def disk_low(federation: Federation, given: Mapping[str, Any], since: datetime, now: datetime) -> Iterator[Occurrence]:
    """The server’s disk now; the agents’ now, and as their samples tell."""
    share = given["percent"] / 100
    server = shutil.disk_usage(settings.DATA_DIR)
    if server.free < share * server.total:
        yield Occurrence("server", now, None, "The server’s disk is nearly full", _room(server.free, server.total))
    clients = federation.clients.filter(status=ClientStatus.ACTIVE, machine__disk_bytes__gt=0)
    samples: dict[Any, list[VitalsSample]] = defaultdict(list)
    told = VitalsSample.objects.filter(client__in=clients, seconds=_EVERY_CLIENT, at__gt=since)
    for sample in told.order_by("at"):
        samples[sample.client_id].append(sample)
    for client in clients:
        yield from _low_at(client, samples[client.pk], share, now)


def _low_at(client: Client, samples: Sequence[VitalsSample], share: float, now: datetime) -> Iterator[Occurrence]:
    total = client.machine["disk_bytes"]
    points = [(sample.at, sample.values["disk_free"]) for sample in samples if "disk_free" in sample.values]
    if client.vitals.get("disk_free") is not None:
        points.append((now, client.vitals["disk_free"]))
    title = f"The disk of {client.name} is nearly full"
    begun: datetime | None = None
    for at, free in points:
        if free < share * total:
            begun = begun or at
        elif begun:
            yield Occurrence(about_client(client), begun, at, title, client=client)
            begun = None
    if begun:
        yield Occurrence(about_client(client), begun, None, title, _room(points[-1][1], total), client=client)


def _room(free: float, total: float) -> str:
    return f"{byte_size(free)} of {byte_size(total)} are free."
