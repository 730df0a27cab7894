"""The columns that the clients of a federation open to queries."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fedui.catalog.models import App
from fedui.clients.models import Client, ClientStatus
from fedui.federations.models import Federation


@dataclass(frozen=True, slots=True)
class OpenColumn:
    app: App
    name: str
    num_clients: int
    """Active clients that offer it, online or not."""

    @property
    def key(self) -> str:
        return f"{self.app.pk}:{self.name}"

    @property
    def label(self) -> str:
        return f"{self.app}: {self.name} ({self.num_clients} client{'' if self.num_clients == 1 else 's'})"


def open_columns(federation: Federation) -> list[OpenColumn]:
    """By app, then in the order in which agents name them."""
    apps = {(app.name, app.version): app for app in federation.apps.all()}
    counts: Counter[tuple[str, str, str]] = Counter()
    for client in Client.objects.filter(federation=federation, status=ClientStatus.ACTIVE):
        counts.update({(o["name"], o["version"], c): 1 for o in client.apps for c in o.get("columns", [])})
    columns = [OpenColumn(apps[app, version], name, n) for (app, version, name), n in counts.items()]
    return sorted(columns, key=lambda column: str(column.app))
