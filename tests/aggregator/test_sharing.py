"""How runs share clients: no more tasks than an agent takes, the least served first, nobody starved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from aggregator.sharing import Sharing


@dataclass(frozen=True)
class Task:
    client_id: str
    task_id: str
    run_id: str
    federation_id: str = "f"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_client_has_one_task_at_a_time_and_the_least_served_run_comes_next() -> None:
    clock = Clock()
    sharing: Sharing[Task] = Sharing(clock)
    first, second, other = Task("c", "1", "a"), Task("c", "2", "a"), Task("c", "3", "b")
    for task in (first, second, other):
        sharing.add(task)
    assert sharing.next_for("c", 1) == first
    assert sharing.next_for("c", 1) is None
    clock.now = 10.0
    assert sharing.release(first)
    assert sharing.next_for("c", 1) == other, "run a has been served for ten seconds, run b never"
    assert sharing.at_work_for("c") == ["b"]
    assert sharing.next_for("c", 2) == second


def test_a_run_that_comes_late_catches_nothing_up() -> None:
    clock = Clock()
    sharing: Sharing[Task] = Sharing(clock)
    old = Task("c", "0", "old")
    sharing.add(old)
    sharing.next_for("c", 1)
    clock.now = 1_000.0
    sharing.add(Task("c", "again", "old"))
    sharing.release(old)
    sharing.add(Task("c", "new", "new"))
    chosen = sharing.next_for("c", 1)
    assert chosen and chosen.run_id == "old", "they are level, and it waits longer"


def test_another_federation_is_no_measure() -> None:
    clock = Clock()
    sharing: Sharing[Task] = Sharing(clock)
    busy = Task("c", "0", "old")
    sharing.add(Task("x", "y", "elsewhere", federation_id="g"))
    sharing.add(busy)
    sharing.next_for("c", 1)
    clock.now = 100.0
    sharing.add(Task("c", "1", "old"))
    sharing.release(busy)
    sharing.add(Task("c", "2", "new"))
    served = sharing.next_for("c", 1)
    assert served and served.task_id == "1"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=40),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_every_task_is_handed_once_and_never_more_than_a_client_takes(
    asked: list[tuple[str, str]], most: int, random: object
) -> None:
    clock = Clock()
    sharing: Sharing[Task] = Sharing(clock)
    tasks = [Task(client, str(number), run) for number, (client, run) in enumerate(asked)]
    for task in tasks:
        sharing.add(task)
    handed: Counter[str] = Counter()
    at_work: list[Task] = []
    while True:
        for client in "abc":
            while given := sharing.next_for(client, most):
                handed[given.task_id] += 1
                at_work.append(given)
            assert len(sharing.at_work_for(client)) <= most
        if not at_work:
            break
        clock.now += 1.0
        done = at_work.pop(random.randrange(len(at_work)))  # type: ignore[attr-defined]
        assert sharing.release(done)
        assert not sharing.release(done)
    assert handed == Counter(task.task_id for task in tasks)


@given(st.lists(st.floats(0.1, 50.0), min_size=3, max_size=3))
def test_runs_that_always_want_more_are_served_alike(seconds: list[float]) -> None:
    """Whatever their tasks take: no two are ever apart by more than their longest tasks."""
    clock = Clock()
    sharing: Sharing[Task] = Sharing(clock)
    lengths = dict(zip("xyz", seconds, strict=True))
    for run in lengths:
        sharing.add(Task("c", f"{run}0", run))
    served = dict.fromkeys(lengths, 0.0)
    for number in range(1, 200):
        task = sharing.next_for("c", 1)
        assert task
        clock.now += lengths[task.run_id]
        served[task.run_id] += lengths[task.run_id]
        sharing.add(Task("c", f"{task.run_id}{number}", task.run_id))
        sharing.release(task)
    assert max(served.values()) - min(served.values()) <= 2 * max(seconds)
