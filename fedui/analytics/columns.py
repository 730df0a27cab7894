"""The columns that the clients of a federation open to queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aggregator.core.analytics import FEWEST_CLIENTS, QueryConfig
from fedui.catalog.models import App
from fedui.clients.models import Client, ClientQuerySet, ClientStatus
from fedui.federations.models import Federation

MAX_LISTED = 500
"""What agents offer decides the length of a list on everybody's page: those that most clients open are in it."""


@dataclass(frozen=True, slots=True)
class OpenColumn:
    app: App
    name: str
    num_clients: int
    """Active clients that open it, online or not."""

    @property
    def key(self) -> str:
        return f"{self.app.pk}:{self.name}"

    @property
    def label(self) -> str:
        return f"{self.app}: {self.name} ({self.num_clients} clients)"


def open_columns(federation: Federation) -> list[OpenColumn]:
    """Those that enough clients open for a query to have a result; by app, those that most clients open first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for offers in _active(federation).values_list("apps", flat=True):
        counts.update(dict.fromkeys(_opened(offers), 1))
    # Read after the clients: every app that an agent offers is there before its client says so, unless it was deleted since.
    apps = {(app.name, app.version): app for app in federation.apps.all()}
    columns = [
        OpenColumn(apps[app, version], name, number)
        for (app, version, name), number in counts.items()
        if number >= FEWEST_CLIENTS and (app, version) in apps
    ]
    most = sorted(columns, key=lambda column: -column.num_clients)[:MAX_LISTED]
    return sorted(most, key=lambda column: str(column.app))


def num_opening(app: App, config: QueryConfig) -> int:
    """How many active clients, online or not, open the query's column and carry its labels."""
    wanted = (app.name, app.version, config.column)
    return sum(
        config.labels.items() <= labels.items() and wanted in _opened(offers)
        for offers, labels in _active(app.federation).values_list("apps", "labels")
    )


def _active(federation: Federation) -> ClientQuerySet:
    return Client.objects.filter(federation=federation, status=ClientStatus.ACTIVE)


def _opened(offers: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """App, version and name of each column that the apps which one agent offers open."""
    return ((offer["name"], offer["version"], column) for offer in offers for column in offer.get("columns", []))
