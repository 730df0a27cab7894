"""What a report calls clients and people, wherever their names stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedui.clients.models import Client
from fedui.federations.models import Federation
from fedui.reports.models import Naming


@dataclass(slots=True)
class Names:
    """`client(id)` for a client of the run; `text` for whatever engine, agents and people have written."""

    clients: Mapping[str, str]
    """By the client's id."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """What is written in the place of a name. Empty where names are shown."""
    people: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False

    def client(self, client_id: object) -> str:
        return self.clients.get(str(client_id), "another client")

    def person(self, name: str) -> str:
        if not self.anonymous:
            return name
        return self.people.setdefault(name, f"Person {len(self.people) + 1}")

    def text(self, text: str) -> str:
        if not self.anonymous or not text:
            return text
        words = {**self.aliases, **self.people}
        if not words:
            return text
        longest_first = sorted(words, key=len, reverse=True)
        pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])"
        return re.sub(pattern, lambda found: words[found.group()], text)


def names_for(naming: Naming, federation: Federation, participants: Iterable[str], people: Iterable[str]) -> Names:
    """`participants` are the ids of the run's clients. Names of all others of the federation are hidden too."""
    everybody = list(Client.objects.filter(federation=federation).order_by("number").values_list("pk", "name"))
    if naming == Naming.NAMES:
        return Names({str(pk): name for pk, name in everybody})
    took_part = set(participants)
    clients: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for pk, name in everybody:
        alias = "another client"
        if str(pk) in took_part:
            alias = clients[str(pk)] = f"Client {len(clients) + 1}"
        aliases[name] = alias
    names = Names(clients, aliases, anonymous=True)
    for person in people:
        names.person(person)
    return names
