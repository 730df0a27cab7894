"""Finished work that the server may ask for again.

An update is written to a file before it is sent, and kept until the server says that its round is over: so neither a server nor an
agent that begins anew costs any training. The disk gets it while it is being sent. Evaluations are small and quickly made, and kept in
memory alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from pathlib import Path

from google.protobuf.message import DecodeError

from client_agent.execution import Evaluation, Update
from client_agent.identity import newest_first, replaced_private_file
from protos import limits
from protos.convert import (
    encoding_from_proto,
    encoding_to_proto,
    packing_from_proto,
    signature_from_proto,
    signature_to_proto,
)
from protos.fedui.v1 import task_pb2, transfer_pb2
from protos.tensors import CodecError

log = logging.getLogger(__name__)

Outcome = Update | Evaluation

KEPT_EVALUATIONS = 4
KEPT_UPDATES = 4
KEPT_BYTES = 2 * 1024**3
"""Of all updates together; the latest is kept whatever its size."""
KEPT_SECONDS = 7 * 86_400
"""An update that nobody has asked for again, whose server never said that it is settled: older ones don't."""

_RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_MAX_HEADER_BYTES = 16 * limits.MAX_MESSAGE_BYTES


class Memory:
    """The last few outcomes. Updates are files in `folder`, which only the agent's user can read.

    They are found by what was asked, the encoding included, not by the task's id: a server that repeats a round does so by a new attempt.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._evaluations: dict[bytes, Evaluation] = {}
        self._unwritten: dict[Path, Update] = {}  # the latest, where the disk took it not
        for path in folder.glob("*.new"):  # what a crash has left half written
            path.unlink(missing_ok=True)
        self._clear()

    def recall(self, task: task_pb2.Task) -> Outcome | None:
        if task.kind == task_pb2.TASK_KIND_EVALUATE:
            return self._evaluations.get(_question(task))
        path = self._path(task)
        return self._unwritten.get(path) or _read(path)

    def keep(self, task: task_pb2.Task, outcome: Outcome) -> None:
        """So that it outlives this process; see `flush`."""
        if isinstance(outcome, Evaluation):
            self._evaluations[_question(task)] = outcome
            if len(self._evaluations) > KEPT_EVALUATIONS:
                del self._evaluations[next(iter(self._evaluations))]
            return
        path = self._path(task)
        self._unwritten.clear()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(path, outcome)
            self._clear()
        except OSError as error:  # the update can be sent all the same
            log.warning("The update can't be kept in %s: %s", self._folder, error.strerror)
            self._unwritten[path] = outcome

    def flush(self, task: task_pb2.Task) -> None:
        """So that what is kept of the task outlives the machine's end too, once this returns."""
        if task.kind == task_pb2.TASK_KIND_EVALUATE:
            return
        try:
            with self._path(task).open("rb+") as file:
                os.fsync(file.fileno())
        except FileNotFoundError:
            pass  # settled, or never written
        except OSError as error:
            log.warning("The update kept in %s may not be on disk: %s", self._folder, error.strerror)

    def acknowledge(self, task: task_pb2.Task) -> None:
        """Forget the updates of rounds that are over, as `task` shows: the run has got further, or has counted this client's."""
        self.settle(task.run_id, max(task.round - 1, task.counted_round))

    def settle(self, run_id: str, through_round: int | None) -> None:
        """Forget the run's updates, up to this round or all of them."""
        if not _RUN_ID.fullmatch(run_id):
            return
        for path in self._folder.glob(f"{run_id}_*.update"):
            if through_round is None or int(path.stem.split("_")[1]) <= through_round:
                path.unlink(missing_ok=True)

    def runs(self) -> list[str]:
        """Of which there are updates on disk: the server says which of them are settled."""
        found = {path.stem.split("_")[0] for path in self._folder.glob("*_*_*.update")}
        return sorted(found)[: limits.MAX_KEPT_RUNS]

    def _path(self, task: task_pb2.Task) -> Path:
        run = task.run_id if _RUN_ID.fullmatch(task.run_id) else "run"
        digest = hashlib.sha256(_question(task)).hexdigest()
        return self._folder / f"{run}_{task.round}_{digest[:32]}.update"

    def _clear(self) -> None:
        """Remove what is old and what is too much. Other tasks may be writing theirs, and the loop forget what is settled."""
        kept, size = 0, 0
        for path, status in newest_first(self._folder.glob("*.update")):
            kept, size = kept + 1, size + status.st_size
            too_much = kept > 1 and (kept > KEPT_UPDATES or size > KEPT_BYTES)
            if too_much or status.st_mtime < time.time() - KEPT_SECONDS:
                path.unlink(missing_ok=True)


def _write(path: Path, update: Update) -> None:
    """The length of the header, the header, the content. What a machine that stopped has left of it is told by its hash."""
    header = transfer_pb2.UploadHeader(
        size=len(update.content),
        sha256=update.sha256,
        signature=signature_to_proto(update.signature),
        num_examples=update.num_examples,
        metrics=update.metrics,
        encoding=encoding_to_proto(update.encoding, update.packing),
        work=transfer_pb2.LocalWork(done=update.steps[0], planned=update.steps[1]) if update.steps else None,
    ).SerializeToString()
    with replaced_private_file(path, lasting=False) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(update.content)


def _read(path: Path) -> Update | None:
    """None where there is none, or what is there is damaged: then the work is done again."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = transfer_pb2.UploadHeader.FromString(file.read(min(length, _MAX_HEADER_BYTES)))
            content = bytearray(file.read())
        signature, encoding = signature_from_proto(header.signature), encoding_from_proto(header.encoding)
    except FileNotFoundError:
        return None
    except (OSError, DecodeError, CodecError) as error:
        log.warning("The kept update %s can't be read (%s): the work is done again", path, error)
        return None
    if hashlib.sha256(content).hexdigest() != header.sha256:
        log.warning("The kept update %s is damaged: the work is done again", path)
        return None
    packing = packing_from_proto(header.encoding.packing) or "none"
    steps = (header.work.done, header.work.planned) if header.HasField("work") else None
    return Update(
        content, header.sha256, signature, header.num_examples, dict(header.metrics), encoding, packing, steps
    )


def _question(task: task_pb2.Task) -> bytes:
    question = task_pb2.Task()
    question.CopyFrom(task)
    for field in ("task_id", "attempt", "deadline_seconds", "finish_after_seconds", "protection"):
        question.ClearField(field)
    question.model.ClearField("packed")  # another Zstandard makes other bytes of the same model
    return question.SerializeToString(deterministic=True)
