"""A run with as much history as one wants, written in bulk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from django.db import connection, transaction
from django.utils import timezone

from fedui.clients.models import Client
from fedui.runs import digests
from fedui.runs.models import Event, Metric, MetricSource, ModelVersion, Outcome, Participation, Round, RoundStatus, Run

BATCH = 5_000
ROUND_SECONDS = 60
LOST_SHARE = 0.03
ODD_SHARE = 0.01
"""Of the clients, those whose updates are unlike the others now and then."""

LOST: dict[str, Any] = {"outcome": Outcome.LOST, "reason": "Its connection was lost."}
DONE: dict[str, Any] = {
    "outcome": Outcome.COMPLETED, "download_seconds": 1.0, "upload_seconds": 2.0, "bytes_down": 2_600, "num_examples": 200,
    "z_norm": 0.1, "z_cosine": 0.1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    clients: int
    rounds: int
    seed: int = 1


def with_history(run: Run, shape: Shape) -> list[Client]:
    """`shape.rounds` committed rounds of new clients, with figures, models, digests, and the events of beginnings and ends."""
    random = np.random.default_rng(shape.seed)
    clients = _clients(run, shape.clients)
    start = timezone.now() - timedelta(seconds=ROUND_SECONDS * (shape.rounds + 1))
    rounds = Round.objects.bulk_create(
        Round(
            run=run, number=number, status=RoundStatus.COMMITTED,
            started_at=(begun := start + timedelta(seconds=ROUND_SECONDS * number)),
            closed_at=begun + timedelta(seconds=50 + float(random.uniform(0, 5))),
            committed_at=begun + timedelta(seconds=57), ended_at=begun + timedelta(seconds=58),
        )
        for number in range(1, shape.rounds + 1)
    )  # fmt: skip
    _write_participations(rounds, clients, random)
    for first in range(0, len(rounds), 20):
        digests.write(rounds[first : first + 20])
    Metric.objects.bulk_create(_metrics(run, shape.rounds, random), batch_size=BATCH)
    ModelVersion.objects.bulk_create(
        ModelVersion(run=run, round_number=n, key=f"{run.pk}/{n}.safetensors", sha256=f"{n:064x}", size=2_600)
        for n in range(shape.rounds + 1)
    )
    Event.objects.bulk_create(_events(run, rounds, clients), batch_size=500)
    return clients


def _clients(run: Run, count: int) -> list[Client]:
    first = run.federation.clients.count() + 1
    return Client.objects.bulk_create(
        Client(federation=run.federation, name=f"site-{number:04}", number=number)
        for number in range(first, first + count)
    )


def _write_participations(rounds: list[Round], clients: list[Client], random: np.random.Generator) -> None:
    """By rows of their own: half a million objects would take minutes."""
    fields = [field for field in Participation._meta.concrete_fields if not field.primary_key]
    place = {field.attname: index for index, field in enumerate(fields)}
    columns = ", ".join(connection.ops.quote_name(field.column or field.attname) for field in fields)
    table = connection.ops.quote_name(Participation._meta.db_table)
    insert = f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"  # names of ours

    def row_of(part: Participation) -> list[Any]:
        return [field.get_db_prep_save(getattr(part, field.attname), connection) for field in fields]

    ids = [row_of(Participation(round=rounds[0], client=client))[place["client_id"]] for client in clients]
    lost_row, done_row = (row_of(Participation(round=rounds[0], client=clients[0], **kind)) for kind in (LOST, DONE))
    with transaction.atomic(), connection.cursor() as cursor:
        for round_ in rounds:
            rows = []
            for index, values in enumerate(_figures(round_, len(clients), random)):
                row = list(done_row if values else lost_row)
                row[place["round_id"]], row[place["client_id"]] = round_.pk, ids[index]
                for name, value in values.items():
                    row[place[name]] = value
                rows.append(row)
            cursor.executemany(insert, rows)


def _figures(round_: Round, size: int, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Of each client; nothing of one that was lost."""
    norms, cosines = random.lognormal(0, 0.12, size).tolist(), np.clip(random.normal(0.7, 0.08, size), -1, 1).tolist()
    losses = (2 / round_.number**0.5 + random.normal(0, 0.03, size)).tolist()
    seconds, lost = random.lognormal(3.5, 0.2, size).tolist(), (random.random(size) < LOST_SHARE).tolist()
    odd = (random.random(size) < 0.3).tolist()
    for index in range(size):
        if lost[index]:
            yield {}
            continue
        flagged = odd[index] and index % round(1 / ODD_SHARE) == 0
        yield {
            "train_seconds": seconds[index],
            "bytes_up": 2_600 + index,
            "metrics": f'{{"loss": {losses[index]}}}',
            "update_norm": norms[index],
            "norm_ratio": 2.0 if flagged else norms[index],
            "cosine_to_aggregate": cosines[index],
            "flagged": flagged,
            "flag_reason": "its norm is 2.0 times the median" if flagged else "",
        }


def _metrics(run: Run, rounds: int, random: np.random.Generator) -> Iterator[Metric]:
    for number in range(1, rounds + 1):
        noise = float(random.normal(0, 0.004))
        for source in MetricSource:
            yield Metric(
                run=run, round_number=number, source=source, name="accuracy", value=0.95 - 0.6 * number**-0.5 + noise
            )
            yield Metric(run=run, round_number=number, source=source, name="loss", value=2 * number**-0.5 - noise)


def _events(run: Run, rounds: list[Round], clients: list[Client]) -> Iterator[Event]:
    cohort = [{"id": str(client.pk), "name": client.name} for client in clients]
    for index, round_ in enumerate(rounds):
        started: dict[str, Any] = {"attempt": 1, "cohort": cohort, "deadline_seconds": 60}
        committed = {
            "attempt": 1,
            "metrics": [],
            "bytes_up": 1,
            "bytes_down": 1,
            "seconds": 57,
            "sha256": "",
            "size": 1,
        }
        words = {"level": "round", "round_number": round_.number}
        yield Event(
            run=run, seq=2 * index + 1, at=round_.started_at, kind="round.started",
            message=f"Round {round_.number} started with {len(clients)} clients", data=started, **words,
        )  # fmt: skip
        yield Event(
            run=run, seq=2 * index + 2, at=round_.committed_at or round_.started_at, kind="round.committed",
            message=f"Round {round_.number} committed", data=committed, **words,
        )  # fmt: skip
