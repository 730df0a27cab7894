"""Clients by round: a window of rounds, and of the clients in it a page. Costs the same number of queries whatever there is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Exists, OuterRef, QuerySet

from fedui.clients.models import Client
from fedui.runs import digests
from fedui.runs.digests import QUANTILES, Part, measured, shortened
from fedui.runs.models import Participation, Round, Run
from fedui.runs.serialize import client_payload

COLUMNS = 60
ROWS = 60
"""Of more clients, the spread is shown and those that were unlike the others; the rest in pages."""
NAMED_OUTLIERS = 20
HISTORY_ROUNDS = 2_000


@dataclass(frozen=True, slots=True)
class Window:
    """What is asked for. `page` 0: the overview, which for few clients is all of them."""

    until: int | None = None
    """The last round; None: the newest."""
    page: int = 0
    find: str = ""


def heat_payload(run: Run, window: Window) -> dict[str, Any]:
    digests.ensure(run)
    rounds = _rounds(run, window.until)
    clients = _took_part(run, rounds)
    total = clients.count()
    overview = total > ROWS and not window.page and not window.find
    if window.find:
        clients = clients.filter(name__icontains=window.find)
    pages = Paginator(clients.order_by("number"), ROWS)
    shown = _outliers(clients, rounds) if overview else list(pages.get_page(window.page or 1))
    return {
        "rounds": [_column(round_) for round_ in rounds],
        "total": total,
        "found": total if overview else pages.count,
        "page": 0 if overview else pages.get_page(window.page or 1).number,
        "pages": pages.num_pages,
        "overview": overview,
        "quantiles": QUANTILES,
        "clients": [client_payload(client) for client in shown],
        "cells": _cells(rounds, shown),
    }


def _rounds(run: Run, until: int | None) -> list[Round]:
    """Of each of the last numbers the newest attempt."""
    found = run.rounds.select_related("digest")
    if until is not None:
        found = found.filter(number__lte=until)
    last = found.order_by("-number", "-attempt").first()
    if last is None:
        return []
    newest = {
        round_.number: round_ for round_ in found.filter(number__gt=last.number - COLUMNS)
    }  # in order of attempts
    return [newest[number] for number in sorted(newest)]


def _took_part(run: Run, rounds: list[Round]) -> QuerySet[Client]:
    parts = Participation.objects.filter(client=OuterRef("pk"), round__in=[round_.pk for round_ in rounds])
    return Client.objects.filter(Exists(parts), federation=run.federation_id)


def _outliers(clients: QuerySet[Client], rounds: list[Round]) -> list[Client]:
    counts: Counter[str] = Counter()
    for round_ in rounds:
        if digest := getattr(round_, "digest", None):
            counts.update(digest.flagged)
    ids = [client_id for client_id, _ in counts.most_common(NAMED_OUTLIERS)]
    found = {str(client.pk): client for client in clients.filter(pk__in=ids)}
    return [found[client_id] for client_id in ids if client_id in found]


def _column(round_: Round) -> dict[str, Any]:
    digest = getattr(round_, "digest", None)
    return {
        "number": round_.number,
        "attempt": round_.attempt,
        "status": round_.status,
        "spread": digest.spread if digest else {},
    }


def _cells(rounds: list[Round], clients: list[Client]) -> dict[str, list[list[Any]]]:
    """By client: index of the column, outcome, norm, cosine, loss, duration, bytes, flagged."""
    column = {round_.pk: index for index, round_ in enumerate(rounds)}
    cells: dict[str, list[list[Any]]] = {str(client.pk): [] for client in clients}
    for part in measured(Participation.objects.filter(round__in=column, client__in=clients)):
        cells[part.client].append([column[part.round], *_cell(part)])
    return cells


def _cell(part: Part) -> list[Any]:
    return [
        part.outcome,
        shortened(part.norm),
        shortened(part.cosine),
        shortened(part.loss),
        shortened(part.duration),
        part.bytes,
        int(part.flagged),
    ]


def history_payload(run: Run, client: Client) -> dict[str, Any]:
    """All rounds of a run in which a client was asked, and how the others were spread in each of them."""
    digests.ensure(run)
    asked = run.rounds.filter(participations__client=client).select_related("digest").order_by("-number", "-attempt")
    rounds = {round_.pk: round_ for round_ in asked[:HISTORY_ROUNDS]}
    mine = Participation.objects.filter(client=client, round__run=run)
    reasons = dict(mine.exclude(reason="").order_by().values_list("round_id", "reason"))
    flags = dict(mine.filter(flagged=True).order_by().values_list("round_id", "flag_reason"))
    parts = {part.round: part for part in measured(mine)}
    return {
        "client": client_payload(client),
        "quantiles": QUANTILES,
        "rounds": [
            _column(rounds[pk])
            | {"cell": _cell(parts[pk]), "reason": reasons.get(pk, ""), "flag_reason": flags.get(pk, "")}
            for pk in reversed(rounds)
            if pk in parts
        ],
    }
