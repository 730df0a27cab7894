"""What the palette finds: things of the federation by their names. At most a few of each kind, whatever is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, IntegerField, Q, QuerySet, Value, When
from django.urls import reverse

from fedui.bookmarks.models import SavedView
from fedui.clients.models import Client
from fedui.federations.models import Act, Membership
from fedui.registry.models import RegisteredModel
from fedui.runs.models import Run
from fedui.strategies.models import Strategy

MOST = 6
"""Of one kind."""
MAX_WORDS, MAX_LENGTH = 6, 100


@dataclass(frozen=True, slots=True)
class Hit:
    group: str
    text: str
    address: str
    icon: str
    note: str = ""

    def payload(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Command:
    """Something new to make. What a role may not do isn't offered."""

    text: str
    url: str
    query: str
    icon: str
    act: Act


COMMANDS = (
    Command("Start a run", "run-new", "", "play", Act.MANAGE_RUNS),
    Command("New strategy", "strategy-new", "", "strategies", Act.MANAGE_STRATEGIES),
    Command("Ask a query", "query-new", "", "queries", Act.MANAGE_RUNS),
    Command("Create an enrollment token", "tokens", "?dialog=create", "tokens", Act.MANAGE_TOKENS),
    Command("Who would take part in a run", "readiness", "", "clients", Act.READ),
)


def search(membership: Membership, text: str) -> list[Hit]:
    """Actions and things that the member may see. Without words, the latest runs and the member's views."""
    words = text[:MAX_LENGTH].split()[:MAX_WORDS]
    return [hit for find in _finders(membership) for hit in find(membership, words)]


def _finders(membership: Membership) -> Iterator[Callable[[Membership, list[str]], Iterable[Hit]]]:
    yield _commands
    if membership.may(Act.READ):
        yield _runs
    yield _clients
    if membership.may(Act.READ):
        yield from (_strategies, _models)
    yield _views


def _commands(membership: Membership, words: list[str]) -> Iterator[Hit]:
    for command in COMMANDS:
        if membership.may(command.act) and all(word.lower() in f"actions {command.text}".lower() for word in words):
            address = _address(membership, command.url) + command.query
            yield Hit("Actions", command.text, address, command.icon)


def _runs(membership: Membership, words: list[str]) -> Iterator[Hit]:
    found = Run.objects.filter(federation=membership.federation_id)
    for word in words:
        named = Q(name__icontains=word) | Q(strategy_version__strategy__name__icontains=word) | Q(status=word.lower())
        number = word.removeprefix("#")
        is_number = number.isascii() and number.isdecimal() and len(number) < 10
        found = found.filter(named | Q(pk=int(number)) if is_number else named)
    for run in _best(found, words, "-pk"):
        note = f"{run.get_status_display()}, round {run.rounds_done} of {run.num_rounds}"
        yield Hit("Runs", f"{run.name} #{run.pk}", _address(membership, "run", run.pk), "runs", note)


def _clients(membership: Membership, words: list[str]) -> Iterator[Hit]:
    if not words:
        return
    found = Client.objects.visible_to(membership)
    for word in words:
        key, separator, value = word.partition(":")
        is_label = separator and key and value
        found = found.labelled(key, value) if is_label else found.filter(name__icontains=word)
    for client in _best(found, words, "name"):
        yield Hit("Clients", client.name, _address(membership, "client", client.pk), "clients", client.presence.label)


def _strategies(membership: Membership, words: list[str]) -> Iterator[Hit]:
    if not words:
        return
    found = Strategy.objects.filter(federation=membership.federation_id)
    for word in words:
        found = found.filter(Q(name__icontains=word) | Q(description__icontains=word))
    for strategy in _best(found, words, "name"):
        yield Hit("Strategies", strategy.name, _address(membership, "strategy", strategy.name), "strategies")


def _models(membership: Membership, words: list[str]) -> Iterator[Hit]:
    if not words:
        return
    found = RegisteredModel.objects.filter(federation=membership.federation_id)
    for word in words:
        found = found.filter(Q(name__icontains=word) | Q(description__icontains=word))
    for model in _best(found, words, "name"):
        yield Hit("Models", model.name, _address(membership, "model", model.name), "models")


def _views(membership: Membership, words: list[str]) -> Iterator[Hit]:
    found = SavedView.objects.visible_to(membership).select_related("federation", "owner")
    for word in words:
        found = found.filter(name__icontains=word)
    for view in _best(found, words, "name"):
        note = "" if view.owner_id == membership.user_id else f"shared by {view.owner.username}"
        yield Hit("Saved views", view.name, view.address, "star", note)


def _best(found: QuerySet[Any], words: list[str], order: str) -> QuerySet[Any]:
    """Those whose names begin with the first word before the others."""
    if not words:
        return found.order_by(order)[:MOST]
    begins = Case(When(name__istartswith=words[0], then=Value(0)), default=Value(1), output_field=IntegerField())
    return found.order_by(begins, order)[:MOST]


def _address(membership: Membership, name: str, *args: object) -> str:
    return reverse(f"federation:{name}", args=[membership.federation.slug, *args])
