"""What the parts that drive one run have in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from aggregator.core.metrics import numeric
from aggregator.core.strategy import Strategy
from aggregator.events import EventLog
from aggregator.hub import Assignment, Hub, Listener, Update, UpdateRefused
from aggregator.models import Payload
from aggregator.ports import Evaluator, Lease, MetricRecord, ModelStore, RunSpec, RunStore
from protos.convert import ScalarValue, encoding_to_proto, scalars_to_proto
from protos.encodings import PLAIN, decode, first_non_finite
from protos.fedui.v1 import task_pb2
from protos.tensors import CodecError, Parameters, Signature


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
            deadline_seconds=self.spec.strategy.faults.deadline_seconds,
            local_tensors=self.strategy.local_tensors if model else (),
            counted_round=counted_round,
            encoding=encoding_to_proto(encoding, self.spec.strategy.update.packing if fit else "none"),
            rounding_seed=_rounding_seed(self.spec.seed, round_number, client_id) if encoding != PLAIN else 0,
            protection=protection,
        )
        assignment = Assignment(client_id, task, listener, largest_update=largest)
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

    `current` is the global model that the client was given. Tensors that came encoded stay so, and are decoded chunk by chunk
    where they are read (`protos.encodings.EncodedTensor`).
    """
    if misfit := signature.misfit(update.signature):
        raise UpdateRefused(f"The update doesn't fit the model: {misfit}.")
    try:
        parameters = await asyncio.to_thread(decode, update.buffer, update.signature, update.encoding, current)
    except CodecError as error:
        raise UpdateRefused(str(error)) from error
    if tensor := await asyncio.to_thread(first_non_finite, parameters):
        raise UpdateRefused(f"Tensor {tensor!r} of the update holds NaN or infinity: the training has diverged.")
    return parameters
