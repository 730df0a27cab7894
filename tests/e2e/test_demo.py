"""`fedui demo` as a newcomer runs it: the whole platform as processes, with embedded and with real services."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from safetensors.numpy import load_file

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

FEDUI = Path(sys.executable).parent / "fedui"
TOO_LONG = 240.0


class Demo:
    """The program, and what it has said."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("FEDUI_", "DJANGO_", "REDIS_"))
        }
        command = [
            str(FEDUI),
            "demo",
            "--no-browser",
            "--port",
            "0",
            "--grpc-port",
            "0",
            "--data-dir",
            str(folder),
            *arguments,
        ]
        self.output = folder.with_suffix(".out")
        with self.output.open("w") as output:
            self.process = subprocess.Popen(command, env=kept | environment, stdout=output, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        self._until(lambda: words in self.said or self.process.poll() is not None)
        assert words in self.said, self.said

    def wait(self) -> int:
        return self.process.wait(TOO_LONG)

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TOO_LONG
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def services() -> Iterator[dict[str, str]]:
    """A fresh database on a real PostgreSQL, and a real Redis."""
    server = os.environ.get("FEDUI_TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
    name = f"fedui_e2e_{secrets.token_hex(4)}"
    with psycopg.connect(server.replace("postgres://", "postgresql://"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield {"DATABASE_URL": server.rpartition("/")[0] + f"/{name}", "REDIS_URL": os.environ["REDIS_URL"]}
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def check_result(demo: Demo, rounds: int) -> None:
    assert demo.wait() == 0, demo.said
    accuracy = re.search(r"Accuracy on held-out data: (\d\.\d+)", demo.said)
    model = re.search(r"Model: (.+)", demo.said)
    assert accuracy and float(accuracy[1]) > 0.90
    assert f"Rounds: {rounds} of {rounds}" in demo.said
    assert re.search(r"Bytes: [\d,]+ up, [\d,]+ down", demo.said)
    assert model
    assert set(load_file(model[1])) == {"hidden.weight", "hidden.bias", "output.weight", "output.bias"}


def test_it_trains_a_good_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo", "--rounds", "5", "--exit")
    demo.wait_for("Round 1 of 5")
    children = demo.descendants()
    assert len(children) >= 9  # Redis, web, worker, beat and five agents
    check_result(demo, rounds=5)
    assert not [child for child in children if child.is_running()]


@pytest.mark.skipif("REDIS_URL" not in os.environ, reason="needs PostgreSQL and Redis, as `make test` finds them")
def test_it_runs_on_postgresql_and_redis(tmp_path: Path, services: dict[str, str]) -> None:
    check_result(Demo(tmp_path / "demo", "--rounds", "4", "--exit", **services), rounds=4)
    assert not (tmp_path / "demo" / "fedui.sqlite3").exists()
    assert not (tmp_path / "demo" / "log" / "redis.log").exists()


@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('torch')", reason="PyTorch is not installed")
def test_agents_in_numpy_and_in_torch_train_one_model(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo", "--rounds", "5", "--exit", "--torch")
    check_result(demo, rounds=5)


def test_a_run_goes_on_when_its_worker_is_killed(tmp_path: Path) -> None:
    demo = Demo(tmp_path / "demo", "--rounds", "6", "--exit")
    demo.wait_for("Round 2 of 6")
    (worker,) = [child for child in demo.descendants() if "worker" in child.cmdline()]
    worker.kill()
    demo.wait_for("worker has ended with exit code -9; starting it again")
    check_result(demo, rounds=6)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_no_process_is_left(how: signal.Signals, tmp_path: Path) -> None:
    if how is signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux can end the children of a parent that was killed")
    demo = Demo(tmp_path / "demo")
    demo.wait_for("Password")
    children = demo.descendants()
    demo.process.send_signal(how)
    assert demo.wait() == (-how if how is signal.SIGKILL else 0)
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left
