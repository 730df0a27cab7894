"""What a report of a run says. A fixed number of queries, whatever the run's length and the size of its fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml
from django.db.models import Avg, Count, Q, Sum
from django.db.models.functions import Coalesce
from django.utils import timezone

import fedui
from fedui.audit.models import ChainHead
from fedui.audit.services import head_of_chain
from fedui.reports.models import Naming
from fedui.reports.naming import Names, names_for
from fedui.runs.figures import MOST_TRUSTED_FIRST
from fedui.runs.models import (
    CommandKind,
    Metric,
    MetricSource,
    ModelVersion,
    Outcome,
    Participation,
    Round,
    RoundStatus,
    Run,
    RunCommand,
)
from fedui.web.figures import is_lower_better

SHOWN_METRICS = ("accuracy", "loss")
MOST_FLAGS = 200
_LOST = Q(outcome__in=(Outcome.LOST, Outcome.LATE, Outcome.FAILED, Outcome.REJECTED))

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]


@dataclass(frozen=True, slots=True)
class RoundRow:
    round: Round
    reason: str
    accuracy: float | None
    loss: float | None
    sha256: str

    @property
    def lost(self) -> int:
        return max(0, self.round.expected - self.round.received)


@dataclass(frozen=True, slots=True)
class ClientRow:
    name: str
    asked: int
    counted: int
    lost: int
    examples: int
    bytes: int
    seconds: float | None
    flagged: int


@dataclass(frozen=True, slots=True)
class CommandRow:
    at: datetime
    who: str
    label: str
    round_number: int
    details: str


@dataclass(frozen=True, slots=True)
class Report:
    run: Run
    made_at: datetime
    version: str
    naming: Naming
    curves: Curves
    """By metric, then by where it was measured."""
    final: Sequence[tuple[str, float, float, int]]
    """Metric, its last value and its best, and the round of the best; from the most trusted source."""
    rounds: Sequence[RoundRow]
    clients: Sequence[ClientRow]
    findings: Sequence[str]
    commands: Sequence[CommandRow]
    models: Sequence[ModelVersion]
    config: str
    reason: str
    author: str
    head: ChainHead

    @property
    def committed(self) -> int:
        return sum(row.round.status == RoundStatus.COMMITTED for row in self.rounds)

    @property
    def traffic(self) -> int:
        return sum(row.round.bytes_up + row.round.bytes_down for row in self.rounds)

    @property
    def asked(self) -> int:
        return sum(row.round.expected for row in self.rounds)

    @property
    def counted(self) -> int:
        return sum(row.round.received for row in self.rounds)


def report_of(run: Run, naming: Naming) -> Report:
    took_part = _participation(run)
    commands = list(run.commands.all())
    author = run.created_by.get_username() if run.created_by else ""
    people = dict.fromkeys(filter(None, [author, *(command.actor_name for command in commands)]))
    names = names_for(naming, run.federation, (str(row["client"]) for row in took_part), people)
    curves = _curves(run)
    models = list(run.models.order_by("round_number"))
    config = yaml.safe_dump(run.strategy_version.config, sort_keys=False, allow_unicode=True)
    return Report(
        run=run,
        made_at=timezone.now(),
        version=fedui.__version__,
        naming=naming,
        curves={name: curves[name] for name in SHOWN_METRICS if name in curves},
        final=_final(curves),
        rounds=_rounds(run, curves, models, names),
        clients=[_client_row(row, names) for row in took_part],
        findings=_findings(run, names),
        commands=[_command_row(command, names) for command in commands],
        models=models,
        config=names.text(config),
        reason=names.text(run.reason),
        author=names.person(author) if author else "",
        head=head_of_chain(),
    )


def _curves(run: Run) -> dict[str, dict[str, list[tuple[float, float]]]]:
    curves: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(dict)
    rows = (
        Metric.objects.filter(run=run).order_by("round_number").values_list("name", "source", "round_number", "value")
    )
    for name, source, number, value in rows:
        curves[name].setdefault(source, []).append((number, value))
    return {
        name: {source: lines[source] for source in MOST_TRUSTED_FIRST if source in lines}
        for name, lines in sorted(curves.items())
    }


def _final(curves: Curves) -> list[tuple[str, float, float, int]]:
    found = []
    for name, lines in curves.items():
        line = next(iter(lines.values()))
        number, best = (min if is_lower_better(name) else max)(line, key=lambda point: point[1])
        found.append((name, line[-1][1], best, int(number)))
    return found


def _rounds(run: Run, curves: Curves, models: Sequence[ModelVersion], names: Names) -> list[RoundRow]:
    trusted = {name: dict(next(iter(curves[name].values()))) for name in SHOWN_METRICS if name in curves}
    checksums = {model.round_number: model.sha256 for model in models}
    rows = []
    for round_ in Round.objects.filter(run=run).with_totals():
        counts = round_.status == RoundStatus.COMMITTED
        accuracy, loss = (trusted.get(name, {}).get(round_.number) if counts else None for name in SHOWN_METRICS)
        sha256 = checksums.get(round_.number, "") if counts else ""
        rows.append(RoundRow(round_, names.text(round_.reason), accuracy, loss, sha256))
    return rows


def _participation(run: Run) -> list[Any]:
    counted = Q(outcome=Outcome.COMPLETED)
    found = Participation.objects.filter(round__run=run).order_by("client__number").values("client")
    return list(
        found.annotate(
            asked=Count("pk"),
            counted=Count("pk", filter=counted),
            lost=Count("pk", filter=_LOST),
            examples=Coalesce(Sum("num_examples", filter=counted), 0),
            up=Coalesce(Sum("bytes_up"), 0),
            down=Coalesce(Sum("bytes_down"), 0),
            seconds=Avg("train_seconds"),
            flags=Count("pk", filter=Q(flagged=True)),
        )
    )


def _client_row(row: Mapping[str, Any], names: Names) -> ClientRow:
    return ClientRow(
        name=names.client(row["client"]),
        asked=row["asked"],
        counted=row["counted"],
        lost=row["lost"],
        examples=row["examples"],
        bytes=row["up"] + row["down"],
        seconds=row["seconds"],
        flagged=row["flags"],
    )


def _findings(run: Run, names: Names) -> list[str]:
    flagged = Participation.objects.filter(round__run=run, flagged=True).order_by("round__number", "client__number")
    rows = flagged.values_list("round__number", "client", "flag_reason")[:MOST_FLAGS]
    return [f"Round {number}, {names.client(client)}: {names.text(reason)}" for number, client, reason in rows]


def _command_row(command: RunCommand, names: Names) -> CommandRow:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in command.data.items() if value is not None)
    return CommandRow(
        at=command.at,
        who=names.person(command.actor_name),
        label=CommandKind(command.kind).label,
        round_number=command.round_number,
        details=names.text(told),
    )


SOURCE_LABELS = {
    MetricSource.SERVER.value: "on the server", MetricSource.FEDERATED.value: "by the clients", MetricSource.FIT.value: "in training",
}  # fmt: skip
