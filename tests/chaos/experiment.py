"""Runs on a cluster, disturbed or not, and what must be true of each. Import it when Django is set up for that cluster."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone
from numpy.typing import NDArray
from safetensors.numpy import load_file

from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.catalog.models import App
from fedui.clients.models import Client
from fedui.clients.services import create_token
from fedui.federations.models import Federation
from fedui.federations.services import create_federation
from fedui.runs import commands
from fedui.runs.commands import Order
from fedui.runs.models import Event, Outcome, Participation, RoundStatus, Run, RunStatus
from fedui.runs.services import create_run
from fedui.runs.tasks import host_run
from fedui.strategies.services import create_strategy
from fedui.workers.models import Worker
from tests.chaos.cluster import CLIENTS, Cluster
from tests.chaos.faults import ROUNDS, Fault, Injector
from tests.chaos.processes import Service, until
from tests.chaos.remains import left_behind

T = TypeVar("T")

SEED = 21
HINTS = 20
LATE_SECONDS = 5.0
RUN_SECONDS = 180.0
PATIENT = {
    "cohort": {"min_clients": len(CLIENTS)},
    "faults": {"quorum": len(CLIENTS), "max_abandoned": 100, "deadline_seconds": 60, "wait_for_clients_seconds": 120},
}
"""All clients or no round: whatever happens meanwhile, the model is made of the same updates."""
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "adam": {"optimizer": {"name": "adam"}},
    "scaffold": {"method": {"name": "scaffold"}},
    "median": {"aggregation": {"name": "median"}},
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was wrong with a run; nothing, if all is well."""

    faults: list[str]
    seconds_to_next_event: float | None
    wrong: list[str]


class Laboratory:
    """A federation of agents on a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.owner = User.objects.create_user("chaos", password="x")  # a test's
        self._federation: Federation = create_federation("Chaos", "chaos", self.owner)
        _, token = create_token(self._federation, self.owner, max_uses=len(CLIENTS))
        for index, name in enumerate(CLIENTS):
            cluster.enrol(name, token, index)
        until(lambda: Client.objects.online().count() == len(CLIENTS), "The agents' connection")
        self._app = App.objects.get(federation=self._federation)
        self._versions = {
            name: create_strategy(
                self._federation, self.owner, name=name, config=StrategyConfig.model_validate({**PATIENT, **config})
            ).latest
            for name, config in STRATEGIES.items()
        }
        self._undisturbed: dict[str, dict[str, NDArray[Any]]] = {}

    def begin(self, strategy: str) -> Experiment:
        run = create_run(
            self._federation,
            self.owner,
            name=f"{strategy}",
            strategy_version=self._versions[strategy],
            app=self._app,
            num_rounds=ROUNDS,
            seed=SEED,
        )
        return Experiment(self, run)

    def undisturbed(self, strategy: str) -> dict[str, NDArray[Any]]:
        """The model that a run of `strategy` comes to when nothing happens to it."""
        if strategy not in self._undisturbed:
            experiment = self.begin(strategy)
            experiment.await_end()
            if wrong := experiment.wrongs(None):
                raise RuntimeError(f"A run that nothing happened to went wrong: {wrong}")
            self._undisturbed[strategy] = experiment.model()
        return self._undisturbed[strategy]

    def suffer(self, strategy: str, faults: list[Fault]) -> Verdict:
        """A run of `strategy` through `faults`, one after the other."""
        expected = self.undisturbed(strategy)
        experiment = self.begin(strategy)
        injector = Injector(self.cluster, experiment)
        next_event: float | None = None
        try:
            injector.arm(faults[0])
            for fault, following in zip(faults, [*faults[1:], None], strict=True):
                injector.inflict(fault, following)
                next_event = experiment.seconds_to_next_event(injector.harmed_at)
            experiment.await_end()
            wrong = experiment.wrongs(expected)
        except TimeoutError as error:
            wrong = [str(error), experiment.state()]
        finally:
            injector.disarm()
        return Verdict([str(fault) for fault in faults], next_event, wrong)


class Experiment:
    def __init__(self, laboratory: Laboratory, run: Run) -> None:
        self._laboratory = laboratory
        self._run = run
        self._remarks: list[str] = []
        """What was wrong on the way."""

    def await_new_owner(self) -> None:
        before = self._fresh().lease_fencing
        until(lambda: self._fresh().lease_fencing > before, "Another worker's taking the run up")

    def repeat_hints(self) -> None:
        """Of earlier runs too, in any order, some of them late."""
        ended = Run.objects.exclude(pk=self._run.pk).values_list("pk", flat=True)[:HINTS]
        hints = [*ended, *[self._run.pk] * HINTS]
        random.shuffle(hints)
        for run_id in hints:
            host_run.apply_async((run_id,), countdown=random.uniform(0, LATE_SECONDS))

    def await_rest(self) -> bool:
        until(
            lambda: self._fresh().is_terminal or self._fresh().status == RunStatus.PAUSED,
            "The run's pause",
            RUN_SECONDS,
        )
        run = self._fresh()
        if run.is_terminal:
            return False
        if "The model store" not in run.reason:
            self._remarks.append(f"it paused without saying why: {run.reason!r}")
        if half := self._laboratory.cluster.disk.half_written():
            self._remarks.append(f"half a file is left: {half}")
        return True

    def resume(self) -> None:
        commands.resume(self._fresh(), Order(self._laboratory.owner))

    def await_progress(self, or_else: Callable[[], bool]) -> None:
        done = self._fresh().rounds_done
        until(lambda: or_else() or self._fresh().is_terminal or self._fresh().rounds_done > done, "The next round")

    def serving_worker(self) -> Service:
        """Waits for one to serve."""
        found: list[Service] = []

        def serves() -> bool:
            row = _again(Worker.objects.filter(serving=True, expires_at__gt=timezone.now()).first)
            found[:] = [service] if row and (service := self._laboratory.cluster.worker_of(row.pid)) else []
            return bool(found)

        until(serves, "A worker's serving")
        return found[0]

    def await_end(self) -> None:
        until(lambda: self._fresh().is_terminal, f"The end of the {self._run}", RUN_SECONDS)

    def seconds_to_next_event(self, since: float) -> float:
        """Waits for the first event that the run has after `since`, in seconds since the epoch."""
        later = Event.objects.filter(run=self._run, at__gt=_moment(since)).order_by("seq")
        until(lambda: _again(later.exists), "The next event of the run")
        event = _again(later.first)
        assert event is not None  # it exists, as just seen
        return float(event.at.timestamp() - since)

    def state(self) -> str:
        run = self._fresh()
        last = run.events.last()
        return f"status {run.status} ({run.reason}), {run.rounds_done} rounds done, last event: {last and last.message}"

    def model(self) -> dict[str, NDArray[Any]]:
        model = self._run.latest_model
        assert model is not None  # the run is complete
        return load_file(self._laboratory.cluster.data / "models" / model.key)

    def wrongs(self, expected: Mapping[str, NDArray[Any]] | None) -> list[str]:
        """What is not as it must be, in words, now that the run has ended."""
        run = self._fresh()
        wrong = []
        if run.status != "completed" or run.rounds_done != ROUNDS:
            return [f"the run has not completed: {self.state()}"]
        if expected is not None and not _same(self.model(), expected):
            wrong.append("the model differs from the undisturbed one")
        return [
            *self._remarks,
            *wrong,
            *self._wrong_rounds(),
            *self._wrong_events(),
            *self._wrong_trainings(),
            *self._left_behind(),
        ]

    def _wrong_rounds(self) -> list[str]:
        committed = self._run.rounds.filter(status=RoundStatus.COMMITTED).values_list("number", flat=True)
        counted = Counter(
            Participation.objects.filter(
                round__run=self._run, round__status=RoundStatus.COMMITTED, outcome=Outcome.COMPLETED
            ).values_list("round__number", "client")
        )
        wrong = [] if sorted(n for n in committed if n) == list(range(1, ROUNDS + 1)) else ["rounds are missing"]
        return wrong + [f"{who} counted {n} times in round {number}" for (number, who), n in counted.items() if n > 1]

    def _wrong_events(self) -> list[str]:
        numbers = list(self._run.events.values_list("seq", flat=True))
        wrong = [] if numbers == list(range(1, len(numbers) + 1)) else ["the numbers of events have a gap"]
        return wrong + ["events were lost"] * self._run.events.filter(kind="event.lost").exists()

    def _wrong_trainings(self) -> list[str]:
        """A training that was finished must not be done again."""
        wrong = []
        for name in CLIENTS:
            file = self._laboratory.cluster.trainings / name
            lines = file.read_text().splitlines() if file.exists() else []
            finished = Counter(line for line in lines if line.startswith(f"finished {self._run.pk} "))
            wrong += [
                f"{name} repeated a training: {line}, {count} times" for line, count in finished.items() if count > 1
            ]
        return wrong

    def _left_behind(self) -> list[str]:
        lease = [] if self._fresh().lease_expires_at is None else ["a lease is left"]
        return lease + left_behind(self._laboratory.cluster)

    def _fresh(self) -> Run:
        return _again(lambda: Run.objects.get(pk=self._run.pk))


def _again(query: Callable[[], T]) -> T:
    """`query`, over a new connection if a fault has cut this one."""
    try:
        return query()
    except (InterfaceError, OperationalError):
        connection.close()
        return query()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _same(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name].view(np.uint8), other[name].view(np.uint8)) for name in one
    )
