"""What the parts that drive one run have in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aggregator.core.history import History, Pace
from aggregator.core.metrics import numeric
from aggregator.core.round import ParticipationReport
from aggregator.core.strategy import Strategy
from aggregator.events import EventLog
from aggregator.hub import Assignment, Hub, Listener, Update, UpdateRefused
from aggregator.mapped import in_blocks
from aggregator.models import Payload
from aggregator.ports import Evaluator, Lease, MetricRecord, ModelStore, RunSpec, RunStore
from protos.convert import ScalarValue, encoding_to_proto, scalars_to_proto
from protos.encodings import PLAIN, decode, first_non_finite
from protos.fedui.v1 import task_pb2
from protos.tensors import CodecError, Parameters, Signature

LEAST_MARGIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class OwnDeadline:
    """What a client's history makes of the round's deadline."""

    seconds: float
    usual: float

    @property
    def reason(self) -> str:
        return f"No update within {self.seconds:.3g} s; it usually takes {self.usual:.3g} s."


@dataclass(frozen=True, slots=True)
class RunContext:
    spec: RunSpec
    lease: Lease
    strategy: Strategy
    hub: Hub
    store: RunStore
    models: ModelStore
    events: EventLog
    evaluator: Evaluator | None
    history: History = field(default_factory=History)

    def usual_seconds(self, clients: Iterable[str]) -> dict[str, float]:
        """How long those that are known well enough take for a fit."""
        known = {client: self.history.usual_seconds(client) for client in clients}
        return {client: seconds for client, seconds in known.items() if seconds is not None}

    def own_deadline(self, client_id: str) -> OwnDeadline | None:
        """None of a client that has the time of the round."""
        faults, usual = self.spec.strategy.faults, self.history.usual_seconds(client_id)
        if not faults.own_deadlines or usual is None:
            return None
        seconds = max(faults.own_margin * usual, usual + LEAST_MARGIN_SECONDS)
        return OwnDeadline(seconds, usual) if seconds < faults.deadline_seconds else None

    def _seconds_for(self, client_id: str) -> float:
        """Until the client's deadline; one that may send unfinished work is only asked to, at its own."""
        own, takes_partial_work = self.own_deadline(client_id), self.spec.strategy.takes_partial_work
        return self.spec.strategy.faults.deadline_seconds if own is None or takes_partial_work else own.seconds

    def _finish_after_seconds(self, client_id: str) -> float:
        """From when on a client sends what its training has come to: it needs the rest of its time for that."""
        if not self.spec.strategy.takes_partial_work:
            return 0.0
        deadline, upload = self._seconds_for(client_id), self.history.upload_seconds(client_id) or 0.0
        return max(deadline / 10, deadline - max(2 * upload, deadline / 10))

    def note_pace(self, report: ParticipationReport) -> None:
        """Of a client whose update has been counted."""
        phases = (report.download_seconds, report.train_seconds, report.upload_seconds)
        self.history.completed(report.client_id, Pace(*(seconds or 0.0 for seconds in phases)))

    def assignment(
        self,
        listener: Listener,
        client_id: str,
        kind: task_pb2.TaskKind.ValueType,
        *,
        round_number: int,
        attempt: int,
        model: Payload | None,
        config: Mapping[str, ScalarValue],
        counted_round: int = 0,
        protection: task_pb2.Protection | None = None,
    ) -> Assignment:
        """A task of this run for one client. Its id is a function of what it is, so that sending it twice changes nothing."""
        largest = max(self.spec.signature.size, self.strategy.uploaded.size)
        fit = kind == task_pb2.TASK_KIND_FIT
        encoding = self.spec.strategy.update.encoding if fit else PLAIN
        name = f"{self.spec.run_id}|{self.lease.fencing}|{round_number}|{attempt}|{kind}|{client_id}"
        task = task_pb2.Task(
            task_id=hashlib.sha256(name.encode()).hexdigest()[:32],
            run_id=str(self.spec.run_id),
            round=round_number,
            attempt=attempt,
            kind=kind,
            app=self.spec.app,
            app_version=self.spec.app_version,
            model=model.ref if model else None,
            config=scalars_to_proto({**config, "seed": self.spec.seed, "round": round_number}),
            deadline_seconds=self._seconds_for(client_id),
            finish_after_seconds=self._finish_after_seconds(client_id) if kind == task_pb2.TASK_KIND_FIT else 0.0,
            local_tensors=self.strategy.local_tensors if model else (),
            counted_round=counted_round,
            encoding=encoding_to_proto(encoding, self.spec.strategy.update.packing if fit else "none"),
            rounding_seed=_rounding_seed(self.spec.seed, round_number, client_id) if encoding != PLAIN else 0,
            protection=protection,
        )
        assignment = Assignment(
            client_id, task, listener, largest_update=largest, federation_id=self.spec.federation_id
        )
        if model:
            assignment.model, assignment.packed_model = model.encoded, model.packed or b""
        return assignment

    async def evaluate_on_server(self, parameters: Parameters) -> list[MetricRecord]:
        """What the evaluator says of the model; nothing where there is none. An evaluator's error is logged, not fatal."""
        if self.evaluator is None or not self.spec.strategy.evaluation.server:
            return []
        loss, num_examples, metrics = await asyncio.to_thread(self.evaluator, parameters)
        values = numeric({**metrics, "loss": loss})
        return [MetricRecord("server", name, value, num_examples) for name, value in values.items()]


def _rounding_seed(seed: int, round_number: int, client_id: str) -> int:
    """The same for every attempt at a round, so that a client that is asked again sends the same bytes; of its own for each client,
    so that their rounding errors cancel."""
    digest = hashlib.sha256(f"rounding|{seed}|{round_number}|{client_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


async def checked_parameters(update: Update, signature: Signature, current: Parameters | None = None) -> Parameters:
    """The update's tensors, if they fit the run's model. Raises `UpdateRefused` with a reason that an operator can read.

    `current` is the global model that the client was given; none where the update is to be the first. Tensors that came encoded
    stay so, and are decoded chunk by chunk where they are read (`protos.encodings.EncodedTensor`); others are read so too.
    """
    if misfit := signature.misfit(update.signature):
        raise UpdateRefused(f"The update doesn't fit the model: {misfit}.")
    try:
        parameters = await asyncio.to_thread(decode, update.buffer, update.signature, update.encoding, current)
        if current is not None:
            parameters = in_blocks(parameters, update.buffer)
    except CodecError as error:
        raise UpdateRefused(str(error)) from error
    if tensor := await asyncio.to_thread(first_non_finite, parameters):
        raise UpdateRefused(f"Tensor {tensor!r} of the update holds NaN or infinity: the training has diverged.")
    return parameters
