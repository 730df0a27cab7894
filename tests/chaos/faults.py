"""What is done to a round, and where. A fault returns when the harm is over; what was killed is started again by its keeper."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from tests.chaos.cluster import CLIENTS, Cluster
from tests.chaos.processes import Service, until

PHASES = ("select", "dispatch", "upload", "collect", "aggregate", "checkpoint", "commit", "announce", "evaluate")
CUT_SECONDS = 3.0
SWALLOW_SECONDS = 6.0
DATABASE_AWAY_SECONDS = 5.0
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` at `phase` of round `round_number`; `client` is whom it is about, where it is about one."""

    kind: str
    phase: str
    round_number: int
    client: str

    def place(self) -> tuple[int, int]:
        return self.round_number, PHASES.index(self.phase)

    def __str__(self) -> str:
        return f"{self.kind} at {self.phase} of round {self.round_number} ({self.client})"


def schedule(count: int, seed: int) -> list[Fault]:
    """So many faults, each kind and phase as often as any other, drawn by `seed`."""
    rng = random.Random(seed)  # a schedule, no secret
    pairs = [(kind, phase) for kind in KINDS for phase in PHASES]
    drawn: list[tuple[str, str]] = []
    while len(drawn) < count:
        drawn += rng.sample(pairs, len(pairs))
    return [Fault(kind, phase, rng.randint(1, ROUNDS), rng.choice(CLIENTS)) for kind, phase in drawn[:count]]


def pairs(count: int, seed: int) -> list[list[Fault]]:
    """So many pairs of faults, the second after the first."""
    drawn = schedule(4 * count, seed)
    couples = [sorted(pair, key=Fault.place) for pair in zip(drawn[::2], drawn[1::2], strict=True)]
    return [couple for couple in couples if couple[0].place() != couple[1].place()][:count]


class RunUnderTest(Protocol):
    def await_new_owner(self) -> None:
        """Wait until another worker has taken the run up."""

    def repeat_hints(self) -> None:
        """Send the workers the message that there is a run, many times, in disorder."""

    def await_rest(self) -> bool:
        """Wait until the run pauses for want of room, or ends without. Whether it has paused."""

    def resume(self) -> None: ...

    def await_progress(self, or_else: Callable[[], bool]) -> None:
        """Wait for the next round, the end, or what else may be."""

    def serving_worker(self) -> Service:
        """The worker that agents are connected to."""


class Injector:
    """Does a fault to a cluster when its round gets there."""

    def __init__(self, cluster: Cluster, run: RunUnderTest) -> None:
        self._cluster = cluster
        self._run = run
        self.harmed_at = 0.0
        """Time of the day of the last fault, in seconds since the epoch."""

    def arm(self, fault: Fault) -> None:
        self._armed(fault).touch()

    def inflict(self, fault: Fault, following: Fault | None, seconds: float = 90.0) -> None:
        """Wait for the round to get there, do it harm, let it go on to the following fault. Raises `TimeoutError`."""
        reached = self._armed(fault).with_name(f"{self._armed(fault).name}.reached")
        until(reached.exists, f"Reaching {fault}", seconds)
        if following:
            self.arm(following)
        self.harmed_at = time.time()
        KINDS[fault.kind](self, fault, partial(reached.unlink, missing_ok=True))
        reached.unlink(missing_ok=True)

    def disarm(self) -> None:
        """Whatever a fault that did not come to its end has left: the next run has a whole cluster."""
        for file in self._cluster.failpoints.iterdir():
            file.unlink(missing_ok=True)
        self._cluster.heal()

    def _holds(self) -> bool:
        """Whether the run waits at the fault that follows."""
        return any(self._cluster.failpoints.glob("*.reached"))

    def _armed(self, fault: Fault) -> Path:
        place = f"upload-{fault.client}" if fault.phase == "upload" else fault.phase
        return self._cluster.failpoints / f"{place}.{fault.round_number}"

    # --- the kinds --------------------------------------------------------------------------------------------------

    def kill_worker(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._kill(self._run.serving_worker())
        go_on()

    def kill_web(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._kill(self._cluster.services["web"])

    def kill_beat(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._kill(self._cluster.services["beat"])

    def kill_redis(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._kill(self._cluster.services["redis"])

    def kill_agent(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._kill(self._cluster.services[fault.client])

    def freeze_agent(self, fault: Fault, go_on: Callable[[], None]) -> None:
        service = self._cluster.services[fault.client]
        service.signal(signal.SIGSTOP)
        go_on()
        time.sleep(CUT_SECONDS)
        service.signal(signal.SIGCONT)

    def freeze_worker(self, fault: Fault, go_on: Callable[[], None]) -> None:
        """Longer than its lease: the other takes the run up, and the frozen one wakes."""
        frozen = self._run.serving_worker()
        frozen.signal(signal.SIGSTOP)
        go_on()
        self._run.await_new_owner()
        frozen.signal(signal.SIGCONT)

    def take_database_away(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._cluster.take_database_away()
        go_on()
        time.sleep(DATABASE_AWAY_SECONDS)
        self._cluster.bring_database_back()

    def cut_network(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._cluster.network.cut()
        go_on()
        time.sleep(CUT_SECONDS)
        self._cluster.network.mend()

    def swallow_network(self, fault: Fault, go_on: Callable[[], None]) -> None:
        self._cluster.network.swallow()
        go_on()
        time.sleep(SWALLOW_SECONDS)
        self._cluster.network.mend()

    def fill_disk(self, fault: Fault, go_on: Callable[[], None]) -> None:
        """The run pauses where it has a checkpoint to write, and is resumed when there is room."""
        self._cluster.disk.fill(self._cluster.worker_pids())
        go_on()
        paused = self._run.await_rest()
        self._cluster.disk.make_room()
        if paused:
            self._run.resume()

    def take_redis_away(self, fault: Fault, go_on: Callable[[], None]) -> None:
        """The run goes on, and its events are stored."""
        redis = self._cluster.services["redis"]
        redis.hold_down()
        go_on()
        self._run.await_progress(or_else=self._holds)
        redis.let_up()
        until(self._cluster.redis_answers, "The return of Redis")

    def repeat_hints(self, fault: Fault, go_on: Callable[[], None]) -> None:
        """The queue delivers what it has delivered, many times and late."""
        self._run.repeat_hints()

    def _kill(self, service: Service) -> None:
        before = service.starts
        service.kill()
        until(lambda: service.starts > before, f"The restart of {service.name}")


KINDS: dict[str, Callable[[Injector, Fault, Callable[[], None]], None]] = {
    "kill-worker": Injector.kill_worker,
    "kill-agent": Injector.kill_agent,
    "kill-web": Injector.kill_web,
    "kill-beat": Injector.kill_beat,
    "kill-redis": Injector.kill_redis,
    "freeze-agent": Injector.freeze_agent,
    "freeze-worker": Injector.freeze_worker,
    "database-away": Injector.take_database_away,
    "cut-network": Injector.cut_network,
    "swallow-network": Injector.swallow_network,
    "repeat-hints": Injector.repeat_hints,
    "redis-away": Injector.take_redis_away,
    "disk-full": Injector.fill_disk,
}
