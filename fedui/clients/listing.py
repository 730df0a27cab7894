"""The clients of a federation as their page lists them: found by words and facets, sorted, some at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.http import QueryDict

from fedui.clients.models import Certificate, Client, Presence
from fedui.runs.models import Outcome, Participation

MOST_LABEL_FACETS = 4
MANY = 200
"""With more clients than this the page shows the fleet as a whole, too."""
_NEVER = datetime.min.replace(tzinfo=UTC)
_PRESENCES = list(Presence)

SORTS: Mapping[str, Callable[[Any], Any]] = {
    "name": lambda client: client.name,
    "presence": lambda client: _PRESENCES.index(client.presence),
    "seen": lambda client: client.last_seen_at or _NEVER,
    "version": lambda client: client.agent_version,
    "answered": lambda client: client.answered / client.asked if client.asked else -1.0,
    "certificate": lambda client: client.certificate_ends or _NEVER,
}


@dataclass(frozen=True, slots=True)
class Facet:
    name: str
    """Of the parameter in the address."""
    label: str
    options: Sequence[tuple[str, str]]
    """Value and label."""
    chosen: frozenset[str]

    @property
    def summary(self) -> str:
        """What is chosen, in words."""
        return ", ".join(label for value, label in self.options if value in self.chosen)


@dataclass(frozen=True, slots=True)
class Listing:
    everybody: Sequence[Any]
    found: Sequence[Any]
    facets: Sequence[Facet]
    text: str
    sort: str

    @property
    def presences(self) -> list[tuple[Presence, int]]:
        """How many clients are in each state; rare ones only where there are any."""
        counts = Counter(client.presence for client in self.everybody)
        common = {Presence.ONLINE, Presence.LATE, Presence.OFFLINE}
        return [(state, counts[state]) for state in Presence if counts[state] or state in common]

    @property
    def is_large(self) -> bool:
        return len(self.everybody) > MANY

    def by_label(self) -> tuple[str, list[tuple[str, int, int]]] | None:
        """The label that most clients carry: of each of its values how many are online, and how many there are."""
        if not (keys := _label_keys(self.everybody)):
            return None
        every = Counter(client.labels[keys[0]] for client in self.everybody if keys[0] in client.labels)
        online = Counter(
            client.labels[keys[0]]
            for client in self.everybody
            if keys[0] in client.labels and client.presence == Presence.ONLINE
        )
        return keys[0], [(value, online[value], number) for value, number in every.most_common(12)]


def listing(clients: QuerySet[Client], query: QueryDict) -> Listing:
    """Of `clients`, by `query`: the page's parameters; those that make no sense are passed over."""
    newest = Certificate.objects.filter(client=OuterRef("pk")).order_by("-issued_at", "-id")
    valid_to = newest.filter(revoked_at=None).values("not_after")[:1]
    everybody = list(clients.annotate(certificate_ends=Subquery(valid_to)).order_by("name"))
    text, facets = query.get("q", "").strip(), _facets(everybody, query)
    found = [client for client in everybody if _matches(client, facets, text)]
    sort = query.get("sort", "name")
    if (key := sort.removeprefix("-")) not in SORTS:
        sort = key = "name"
    if key == "answered":
        with_participation(found)
    found.sort(key=SORTS[key], reverse=sort.startswith("-"))
    return Listing(everybody, found, facets, text, sort)


def with_participation(clients: Iterable[Any]) -> None:
    """Set `asked` and `answered` of each: rounds."""
    by_id = {client.pk: client for client in clients}
    ended = ~Q(outcome__in=[Outcome.PENDING, Outcome.CANCELLED])
    counts = Participation.objects.order_by().values("client").filter(client__in=list(by_id))
    for client in by_id.values():
        client.asked = client.answered = 0
    for row in counts.annotate(
        asked=Count("pk", filter=ended), answered=Count("pk", filter=Q(outcome=Outcome.COMPLETED))
    ):
        by_id[row["client"]].asked, by_id[row["client"]].answered = row["asked"], row["answered"]


def _facets(clients: Sequence[Client], query: QueryDict) -> list[Facet]:
    versions = sorted({client.agent_version for client in clients if client.agent_version}, reverse=True)
    apps = sorted({offer["name"] for client in clients for offer in client.apps})
    options: list[tuple[str, str, list[tuple[str, str]]]] = [
        ("presence", "Presence", [(str(state.value), str(state.label)) for state in Presence]),
        *(
            (f"label.{key}", key, [(v, v) for v in sorted({c.labels[key] for c in clients if key in c.labels})])
            for key in _label_keys(clients)[:MOST_LABEL_FACETS]
        ),
        ("version", "Version", [(version, version) for version in versions]),
        ("app", "App", [(app, app) for app in apps]),
    ]
    return [Facet(name, label, values, _chosen(query, name)) for name, label, values in options if values]


def _label_keys(clients: Iterable[Client]) -> list[str]:
    """The most common first."""
    return [key for key, _ in Counter(key for client in clients for key in sorted(client.labels)).most_common()]


def _chosen(query: QueryDict, name: str) -> frozenset[str]:
    return frozenset(value for values in query.getlist(name) for value in values.split(",") if value)


def _matches(client: Client, facets: Iterable[Facet], text: str) -> bool:
    labels = " ".join(f"{key}:{value}" for key, value in client.labels.items())
    haystack = f"{client.name} {labels} {client.agent_version}".lower()
    return all(word in haystack for word in text.lower().split()) and all(
        not facet.chosen or not facet.chosen.isdisjoint(_values(client, facet.name)) for facet in facets
    )


def _values(client: Client, facet: str) -> set[str]:
    match facet:
        case "presence":
            return {str(client.presence.value)}
        case "version":
            return {client.agent_version}
        case "app":
            return {offer["name"] for offer in client.apps}
    return {client.labels.get(facet.removeprefix("label."), "")}
