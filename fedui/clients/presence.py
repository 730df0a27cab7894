"""What is written of who is there: one row at the beginning and the end of a stream, one UPDATE for all heartbeats of some seconds.

A sign of life is a lease of `OFFLINE_AFTER`. The database's clock counts, and neither an agent's nor a worker's: a worker only tells
how long ago it heard of a client.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, OuterRef, Q, Subquery
from django.db.models.functions import Now
from django.utils import timezone

from aggregator.ports import AgentInfo, AppOffer, DataCard, Sign
from fedui.audit.origin import AGENT
from fedui.audit.services import record
from fedui.catalog.models import App
from fedui.clients.models import OFFLINE_AFTER, Client, Connection, Ending
from fedui.scalars import scalars_to_json

MOST_APPS = 1_000
"""Of one federation, all versions together: an agent can't fill the database with invented ones."""
RECONNECT_WITHIN = timedelta(hours=1)
"""A connection sooner than this after the last sign of life counts as a reconnect."""

_WRITE = {
    "postgresql": """
        UPDATE clients_client SET connected = TRUE, last_seen_at = sign.at, lease_expires_at = sign.at + %s * interval '1 second',
            vitals = sign.vitals, cards = COALESCE(sign.cards, clients_client.cards)
        FROM (SELECT id, session, vitals, cards, clock_timestamp() - age * interval '1 second' AS at
              FROM jsonb_to_recordset(%s::jsonb) AS row(id uuid, session text, age float8, vitals jsonb, cards jsonb)) AS sign
        WHERE clients_client.id = sign.id AND clients_client.session_id = sign.session
        RETURNING clients_client.id, clients_client.federation_id""",
    "sqlite": """
        UPDATE clients_client SET connected = TRUE, last_seen_at = sign.at,
            lease_expires_at = strftime('%%Y-%%m-%%d %%H:%%M:%%f', sign.at, %s || ' seconds'),
            vitals = sign.vitals, cards = COALESCE(sign.cards, clients_client.cards)
        FROM (SELECT value ->> 'id' AS id, value ->> 'session' AS session, value -> 'vitals' AS vitals, value -> 'cards' AS cards,
                  strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', -(value ->> 'age') || ' seconds') AS at
              FROM json_each(%s)) AS sign
        WHERE clients_client.id = sign.id AND clients_client.session_id = sign.session
        RETURNING id, federation_id""",
}


def write_signs(signs: Sequence[Sign]) -> Mapping[str, str]:
    """One UPDATE, however many there are. Tells whose streams are their newest, each with its federation; the others' signs count
    for nothing."""
    rows = json.dumps([_row(sign) for sign in signs])
    with connection.cursor() as cursor:
        cursor.execute(_WRITE[connection.vendor], [OFFLINE_AFTER.total_seconds(), rows])
        return {str(UUID(str(client))): str(UUID(str(federation))) for client, federation in cursor.fetchall()}


def _row(sign: Sign) -> dict[str, Any]:
    key = UUID(sign.client_id)
    row: dict[str, Any] = {
        "id": str(key) if connection.vendor == "postgresql" else key.hex,
        "session": sign.session_id,
        "age": round(sign.age_seconds, 3),
        "vitals": dict(sign.vitals),
    }
    return row if sign.cards is None else row | {"cards": _cards(sign.cards)}


def _cards(cards: Sequence[DataCard]) -> list[dict[str, Any]]:
    return [asdict(card) for card in cards]


@transaction.atomic
def connect(client_id: str, session_id: str, info: AgentInfo) -> str:
    """A stream has been opened, in place of any other. Tells the client's federation."""
    client = Client.objects.select_for_update().get(pk=client_id)
    now = timezone.now()
    if client.last_seen_at and now - client.last_seen_at < RECONNECT_WITHIN:
        client.reconnects = F("reconnects") + 1
    client.connected, client.session_id = True, session_id
    client.connected_at = client.last_seen_at = Now()
    client.lease_expires_at = Now() + OFFLINE_AFTER
    client.unavailable = info.unavailable
    client.agent_version, client.platform = info.agent_version, info.platform
    client.protocol_minor = info.protocol_minor
    if info.apps:  # `fedagent doctor` knocks without any; what the agent offers, has and tells stays known
        client.properties = scalars_to_json(info.properties)
        client.apps = [_describe(client, offer) for offer in info.apps]
        client.machine, client.cards, client.vitals = asdict(info.machine), _cards(info.cards), {}
    client.save()
    client.connections.filter(closed_at=None).update(closed_at=Now(), ending=Ending.MOVED)
    Connection.objects.create(client=client, session_id=session_id, agent_version=info.agent_version, opened_at=Now())
    _record_new_apps(client, info, now)
    return str(client.federation_id)


def _record_new_apps(client: Client, info: AgentInfo, since: datetime) -> None:
    names = [offer.name for offer in info.apps]
    offered = App.objects.filter(federation=client.federation_id, name__in=names, first_offered_at__gte=since)
    for app in offered.order_by("pk"):
        record(client.federation, AGENT, "app.offered_first", app, client=client.name)


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


@transaction.atomic
def disconnect(client_id: str, session_id: str, *, left: bool) -> str:
    """The stream has ended. An agent that was lost is late until its lease is over; one that has left is offline."""
    newest = Client.objects.filter(pk=client_id, session_id=session_id)
    if left:
        newest.update(connected=False, session_id="", last_seen_at=Now(), lease_expires_at=Now())
    else:
        newest.update(connected=False, session_id="")
    open_or_given_up = Q(closed_at=None) | Q(ending=Ending.EXPIRED)
    Connection.objects.filter(open_or_given_up, session_id=session_id).update(
        closed_at=Now(), ending=Ending.LEFT if left else Ending.LOST
    )
    return _federation_of(client_id)


def avail(client_id: str, session_id: str, unavailable: str) -> str:
    Client.objects.filter(pk=client_id, session_id=session_id).update(unavailable=unavailable)
    return _federation_of(client_id)


def _federation_of(client_id: str) -> str:
    return str(Client.objects.values_list("federation_id", flat=True).get(pk=client_id))


@transaction.atomic
def expire_leases() -> set[str]:
    """Clients of workers that died have no stream any more. Tells the federations whose clients have gone offline so.

    A worker that was only cut off from the database takes them up again with its next signs.
    """
    over = Client.objects.filter(connected=True, lease_expires_at__lte=Now())
    gone = dict(over.values_list("pk", "federation_id"))
    if gone:
        Client.objects.filter(pk__in=gone, lease_expires_at__lte=Now()).update(connected=False)
        ended = Client.objects.filter(pk=OuterRef("client"), connected=False).values("lease_expires_at")
        Connection.objects.filter(client__in=gone, client__connected=False, closed_at=None).update(
            closed_at=Subquery(ended), ending=Ending.EXPIRED
        )
    return {str(federation) for federation in gone.values()}
