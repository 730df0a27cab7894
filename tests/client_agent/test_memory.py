"""What an agent keeps of its work, so that nothing is trained twice."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from client_agent import memory
from client_agent.apps.digits_numpy import app as digits
from client_agent.execution import Evaluation, Update
from client_agent.identity import Home
from client_agent.memory import Memory
from client_agent.sdk import Context
from protos import tensors
from protos.encodings import Encoding
from protos.fedui.v1 import fleet_pb2, task_pb2
from protos.tensors import Signature
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import Launch, ToyClient, toy_model

FIT, EVALUATE = task_pb2.TASK_KIND_FIT, task_pb2.TASK_KIND_EVALUATE


def a_task(number: int = 1, run: str = "7", kind: task_pb2.TaskKind.ValueType = FIT, **fields: int) -> task_pb2.Task:
    return task_pb2.Task(task_id=f"t{number}", run_id=run, round=number, kind=kind, app="toy", **fields)  # type: ignore[arg-type]


def an_update(value: float = 1.0, size: int = 3) -> Update:
    parameters = {"w": np.full(size, value, np.float32)}
    content = tensors.encode(parameters)
    digest = hashlib.sha256(content).hexdigest()
    return Update(content, digest, Signature.of(parameters), 5, {}, Encoding("int8", delta=True))


def test_an_update_outlives_the_agent_and_is_found_by_any_attempt(tmp_path: Path) -> None:
    Memory(tmp_path / "updates").keep(a_task(attempt=1), an_update())
    again = Memory(tmp_path / "updates")
    assert again.recall(a_task(attempt=2)) == an_update()
    assert again.recall(a_task(rounding_seed=3)) is None
    (file,) = (tmp_path / "updates").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (a_task(2, attempt=3), {1: False, 2: True}),
        (a_task(2, kind=EVALUATE, counted_round=2), {1: False, 2: False}),
        (a_task(5), {1: False, 2: False}),
        (a_task(5, run="8"), {1: True, 2: True}),
        (a_task(5, run="*"), {1: True, 2: True}),
    ],
)
def test_it_is_forgotten_when_its_round_is_over(tmp_path: Path, told: task_pb2.Task, kept: dict[int, bool]) -> None:
    mine = Memory(tmp_path)
    for number in kept:
        mine.keep(a_task(number), an_update())
    mine.acknowledge(told)
    assert {number: mine.recall(a_task(number)) is not None for number in kept} == kept


def test_what_the_server_says_is_settled_is_forgotten(tmp_path: Path) -> None:
    mine = Memory(tmp_path)
    for number, run in ((1, "7"), (2, "7"), (1, "8")):
        mine.keep(a_task(number, run), an_update())
    assert Memory(tmp_path).runs() == ["7", "8"]
    mine.settle("7", 1)
    assert (mine.recall(a_task(1)), mine.recall(a_task(2))) == (None, an_update())
    mine.settle("8", None)
    mine.settle("../7", None)
    assert mine.runs() == ["7"]


async def test_the_agent_asks_the_server_what_is_settled_and_obeys(
    server: ScriptedServer, launch: Launch, client: ToyClient, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "updates" / "c-1"
    launch()
    server.push_task("t", FIT, toy_model(), round_number=3)
    await server.result("t")
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=0.01))
    await server.until(lambda: len(server.hellos) == 2)
    assert server.hellos[1].kept_runs == ["r"]
    server.push(settled=fleet_pb2.Settled(run_id="r", through_round=3))
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=0.01))
    await server.until(lambda: len(server.hellos) == 3)
    assert not server.hellos[2].kept_runs
    assert not list(folder.iterdir())


def test_what_is_kept_is_bounded_and_ages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "KEPT_BYTES", 2_500)
    mine = Memory(tmp_path)
    for number in range(1, 4):
        mine.keep(a_task(number), an_update(size=250))
    assert [mine.recall(a_task(number)) is not None for number in range(1, 4)] == [False, True, True]
    mine.keep(a_task(4), an_update(size=9_000))
    assert [file.name.split("_")[1] for file in tmp_path.iterdir()] == ["4"]
    for file in tmp_path.iterdir():
        os.utime(file, times=(0, time.time() - memory.KEPT_SECONDS - 1))
    (tmp_path / "7_5_x.new").touch()
    Memory(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_other_tasks_are_writing_or_forgetting_meanwhile_is_left_alone(tmp_path: Path) -> None:
    mine = Memory(tmp_path)
    (tmp_path / "8_5_x.new").touch()
    (tmp_path / "8_4_x.update").symlink_to("gone")
    mine.keep(a_task(), an_update())
    assert (tmp_path / "8_5_x.new").exists()
    assert Memory(tmp_path).recall(a_task()) == an_update()


def test_an_update_for_which_the_disk_has_no_room_leaves_nothing_half_written(tmp_path: Path) -> None:
    mine, usual = Memory(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, usual[1]))
    try:
        mine.keep(a_task(), an_update(size=1_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not list(tmp_path.iterdir())
    assert mine.recall(a_task()) == an_update(size=1_000)


def test_a_damaged_update_is_made_anew(tmp_path: Path) -> None:
    mine = Memory(tmp_path)
    mine.keep(a_task(), an_update())
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:20], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        file.write_bytes(damaged)
        assert mine.recall(a_task()) is None


def test_a_full_disk_costs_nothing_but_the_file(tmp_path: Path) -> None:
    (tmp_path / "updates").touch()  # no folder can be made here
    mine = Memory(tmp_path / "updates")
    mine.keep(a_task(), an_update())
    assert mine.recall(a_task()) == an_update()


def test_evaluations_are_kept_in_memory(tmp_path: Path) -> None:
    mine, evaluation = Memory(tmp_path), Evaluation(0.5, 3, {})
    mine.keep(a_task(kind=EVALUATE), evaluation)
    assert mine.recall(a_task(kind=EVALUATE)) == evaluation
    assert not list(tmp_path.iterdir())


async def test_an_agent_trains_on_while_the_server_is_away_and_is_asked_no_second_time(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    client.may_end.clear()
    launch()
    server.push_task("t1", FIT, toy_model(), attempt=1)
    await asyncio.to_thread(client.started.wait, 20)
    await server.stop()
    client.may_end.set()
    await server.start()
    server.push_task("t2", FIT, toy_model(), attempt=2)  # a server that has begun anew knows nothing of the first
    assert (await server.result("t2")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    assert client.fits == 1


async def test_an_agent_that_is_killed_after_its_training_sends_what_it_made(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """As a process, by SIGKILL, while it waits for its turn to upload."""
    home = Home(tmp_path / "home")
    home.save(server.authority.identity(server.address))
    trainer = digits.client_fn(Context("site-1", {}))
    model = digits.named(trainer.get_parameters({"seed": 1}))
    config = {"seed": 1, "epochs": 1, "batch_size": 16, "learning_rate": 0.1}
    command = [sys.executable, "-m", "client_agent.cli", "run", "--app", "digits-mlp", "--home", str(home.path)]

    async def launch(task_id: str, attempt: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
        server.push_task(task_id, FIT, model, config, app=digits.name, attempt=attempt, version=digits.version)
        return process

    server.turn = asyncio.Event()
    first = await launch("t1", 1)
    await server.until(lambda: any(header.task_id == "t1" for header in server.headers))
    first.kill()
    await first.wait()
    trained = [message.phase for message in server.progress]
    assert task_pb2.PHASE_TRAINING in trained

    server.turn.set()
    server.progress.clear()
    second = await launch("t2", 2)
    assert (await server.result("t2")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    second.terminate()
    await second.wait()
    assert {message.phase for message in server.progress} == {task_pb2.PHASE_UPLOADING}
    before, after = (next(h for h in server.headers if h.task_id == name) for name in ("t1", "t2"))
    assert (before.sha256, before.num_examples) == (after.sha256, after.num_examples)
    assert hashlib.sha256(server.uploads["t2"]).hexdigest() == before.sha256
