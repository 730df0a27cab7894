"""What is told of a round: its events, in words for the operator and in figures for the pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aggregator.context import OwnDeadline
from aggregator.core import round as machine
from aggregator.core.metrics import numeric
from aggregator.core.round import ClientPhase, Outcome, ParticipationReport, RoundMachine, RoundPhase
from aggregator.events import EventLog
from aggregator.participation import comparisons_json
from aggregator.ports import Level, MetricRecord, ModelRecord, RoundRecord


class RoundStory:
    """Tells the story of one attempt at a round. Holds no model, so that what outlives the round may go on telling.

    `names` has the name of each client by its id, and may grow.
    """

    def __init__(self, events: EventLog, number: int, attempt: int, names: Mapping[str, str]) -> None:
        self._events = events
        self._number, self._attempt = number, attempt
        self._names = names

    # --- the round ---------------------------------------------------------------------------------------------------

    def started(self, message: str, cohort: Iterable[str], deadline_seconds: float) -> None:
        self._tell(
            "round.started",
            message,
            level=Level.ROUND,
            attempt=self._attempt,
            cohort=[{"id": client_id, "name": self._names[client_id]} for client_id in cohort],
            deadline_seconds=deadline_seconds,
        )

    def closed(self, received: int, expected: int, cause: str) -> None:
        self._tell(
            "round.closed",
            f"Round {self._number} closed with {received} of {expected} updates ({cause})",
            level=Level.ROUND,
            received=received,
            expected=expected,
            cause=cause,
        )

    def committed(self, record: RoundRecord, stored: ModelRecord, training: Sequence[str]) -> None:
        """`training`: ids of the clients that go on with their work when the round is over."""
        reports = record.participations
        assert record.committed_at is not None  # it has just been
        self._tell(
            "round.committed",
            f"Round {self._number} committed",
            level=Level.ROUND,
            attempt=self._attempt,
            metrics=_metrics_json(record.metrics),
            bytes_up=sum(p.bytes_up for p in reports),
            bytes_down=sum(p.bytes_down for p in reports),
            seconds=(record.committed_at - record.started_at).total_seconds(),
            sha256=stored.sha256,
            size=stored.size,
            training=list(training),
            updates=comparisons_json(reports),
        )
        for report in reports:
            if report.flagged:
                self._flagged(report)

    def evaluated(self, metrics: Sequence[MetricRecord]) -> None:
        words = ", ".join(f"{m.source} {m.name} {m.value:.4g}" for m in metrics)
        message = f"Round {self._number} evaluated: {words}"
        self._tell("round.evaluated", message, level=Level.ROUND, metrics=_metrics_json(metrics))

    def server_evaluation_failed(self, error: Exception) -> None:
        self._tell("round.evaluation_failed", f"The server's evaluation failed: {error}", level=Level.ERROR)

    def abandoned(self, reason: str, training: Sequence[str]) -> None:
        message = f"Round {self._number} abandoned. {reason}"
        self._tell("round.abandoned", message, level=Level.WARNING, reason=reason, training=list(training))

    def waits_for_busy(self, in_hand: int, needed: int) -> None:
        message = f"Waiting for clients busy in other runs: {in_hand} of {needed} have their task"
        self._tell("round.waiting", message, in_hand=in_hand, needed=needed)

    def waits_no_more(self, in_hand: int) -> None:
        message = f"{in_hand} clients have their task: the deadline of round {self._number} runs"
        self._tell("round.going", message, in_hand=in_hand)

    # --- its clients -------------------------------------------------------------------------------------------------

    def entered(self, client_id: str, phase: ClientPhase) -> None:
        self._tell("client.phase", f"{self._names[client_id]} is {phase}", client_id, phase=phase)

    def progressed(
        self, client_id: str, phase: ClientPhase, fraction: float, metrics: Mapping[str, float], words: str
    ) -> None:
        message = words or f"{self._names[client_id]}: {phase} {fraction:.0%}"
        self._tell("client.progress", message, client_id, phase=phase, fraction=fraction, metrics=metrics)

    def waits(self, client_id: str, at_work_for: Sequence[str]) -> None:
        what = ", ".join(
            run.replace("query-", "query ") if run.startswith("query-") else f"run {run}" for run in at_work_for
        )
        message = f"{self._names[client_id]} is busy ({what}); its task waits"
        self._tell("client.waits", message, client_id, at_work_for=list(at_work_for))

    def expects(self, client_id: str, own: OwnDeadline) -> None:
        message = f"{self._names[client_id]} is expected within {own.seconds:.3g} s: it usually takes {own.usual:.3g} s"
        self._tell("client.expected", message, client_id, seconds=own.seconds, usual=own.usual)

    def replaced(self, report: ParticipationReport) -> None:
        message = f"{self._names[report.client_id]} takes the place of {self._names[report.replaces]}"
        self._tell("client.replaces", message, report.client_id, replaces=report.replaces)

    def asked_to_finish(self, client_id: str, own: OwnDeadline) -> None:
        message = f"{self._names[client_id]} is asked to send what it has. {own.reason}"
        self._tell("client.asked_to_finish", message, client_id, reason=own.reason)

    def late(self, report: ParticipationReport, seconds: float) -> None:
        """Of a client that was called off at a deadline, when it is heard of again."""
        words = f"late by {seconds:.1f} s"
        if report.outcome is Outcome.LATE:  # and has not been asked anew
            report.reason = f"{report.reason} It was {words}."
        message = f"{self._names[report.client_id]} was {words}; its work is not taken"
        self._tell("client.late", message, report.client_id, level=Level.WARNING, seconds=seconds)

    def completed(self, report: ParticipationReport, **more: Any) -> None:
        partial = report.steps_done is not None and report.steps_done < (report.steps_planned or 0)
        steps = f", after {report.steps_done:,} of {report.steps_planned:,} steps" if partial else ""
        self._tell(
            "client.completed",
            f"{self._names[report.client_id]} sent its update ({report.num_examples:,} examples{steps})",
            report.client_id,
            num_examples=report.num_examples,
            steps_done=report.steps_done,
            steps_planned=report.steps_planned,
            metrics=numeric(report.metrics),
            bytes_up=report.bytes_up,
            bytes_down=report.bytes_down,
            download_seconds=report.download_seconds,
            train_seconds=report.train_seconds,
            upload_seconds=report.upload_seconds,
            update_norm=report.update_norm,
            update_largest=report.update_largest,
            **more,
        )

    def happens(self, event: machine.RoundEvent, round_: RoundMachine) -> None:
        """What a client's part comes to, before the machine draws its conclusions for the round."""
        match event:
            case machine.EvaluationArrived():
                self._evaluated(event)
            case machine.ClientEnded(_, client_id, outcome, reason) if client_id in round_.pending:
                self._ended(client_id, outcome, reason, round_.phase)
            case machine.OwnDeadlinePassed(_, client_id, reason) if round_.can_spare(event):
                self._ended(client_id, Outcome.LATE, reason, round_.phase)
            case machine.DeadlinePassed():
                for client_id in round_.pending:
                    self._ended(client_id, Outcome.LATE, "The deadline has passed.", round_.phase)

    def _evaluated(self, event: machine.EvaluationArrived) -> None:
        self._tell(
            "client.evaluated",
            f"{self._names[event.client_id]} evaluated the model: loss {event.loss:.4g}",
            event.client_id,
            loss=event.loss,
            num_examples=event.num_examples,
            metrics=numeric(event.metrics),
        )

    def _ended(self, client_id: str, outcome: Outcome, reason: str, phase: RoundPhase) -> None:
        """A refusal is its owner's right, and no failure. One whose evaluation fails has done its part of the training."""
        refused, evaluating = outcome is Outcome.REFUSED, phase is RoundPhase.EVALUATING
        kind = "client.not_evaluated" if evaluating else "client.refused" if refused else "client.failed"
        what = f"no evaluation, {outcome}" if evaluating else outcome
        self._tell(
            kind,
            f"{self._names[client_id]}: {what}. {reason}",
            client_id,
            level=Level.INFO if refused else Level.WARNING,
            outcome=outcome,
            reason=reason,
        )

    def _flagged(self, report: ParticipationReport) -> None:
        self._tell(
            "client.flagged",
            f"{self._names[report.client_id]} is unlike the others: {report.flag_reason}",
            report.client_id,
            level=Level.WARNING,
            reason=report.flag_reason,
            norm_ratio=report.norm_ratio,
            cosine_to_aggregate=report.cosine_to_aggregate,
        )

    def _tell(
        self, kind: str, message: str, client_id: str | None = None, level: Level = Level.INFO, **data: Any
    ) -> None:
        if client_id:
            data = {"name": self._names[client_id], **data}
        self._events.emit(kind, message, level=level, round_number=self._number, client_id=client_id, data=data)


def _metrics_json(metrics: Iterable[MetricRecord]) -> list[dict[str, Any]]:
    return [{"source": m.source, "name": m.name, "value": m.value, "num_examples": m.num_examples} for m in metrics]
