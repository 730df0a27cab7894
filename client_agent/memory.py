"""Finished work that the server may ask for again."""

from __future__ import annotations

from client_agent.execution import Evaluation, Update
from protos.fedui.v1 import task_pb2

Outcome = Update | Evaluation

KEPT_OUTCOMES = 4
KEPT_BYTES = 512 * 1024**2


class Memory:
    """The last few outcomes, so that a restarted server gets its updates again without any training.

    They are found by what was asked, the encoding included, not by the task's id: a server that repeats a round does so by a new attempt.
    """

    def __init__(self) -> None:
        self._outcomes: dict[bytes, Outcome] = {}

    def recall(self, task: task_pb2.Task) -> Outcome | None:
        return self._outcomes.get(_question(task))

    def keep(self, task: task_pb2.Task, outcome: Outcome) -> None:
        self._outcomes[_question(task)] = outcome
        while len(self._outcomes) > 1 and (len(self._outcomes) > KEPT_OUTCOMES or self._bytes() > KEPT_BYTES):
            del self._outcomes[next(iter(self._outcomes))]

    def _bytes(self) -> int:
        return sum(len(outcome.content) for outcome in self._outcomes.values() if isinstance(outcome, Update))


def _question(task: task_pb2.Task) -> bytes:
    question = task_pb2.Task()
    question.CopyFrom(task)
    for field in ("task_id", "attempt", "deadline_seconds", "finish_after_seconds", "protection"):
        question.ClearField(field)
    question.model.ClearField("packed")  # another Zstandard makes other bytes of the same model
    return question.SerializeToString(deterministic=True)
