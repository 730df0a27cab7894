"""The two commands of the README, at their edges: what can't work ends in one line that says why."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedui.supervisor.folders import claimed

ROOT = Path(__file__).parent.parent.parent
FEDUI = Path(sys.executable).parent / "fedui"


def bootstrap() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "bootstrap.py"))


def fedui(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FEDUI_", "DJANGO_"))}
    command = [str(FEDUI), *arguments]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=60, check=False)


def test_an_old_python_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 0, "final", 0))
    with pytest.raises(SystemExit) as ended:
        bootstrap()["check_python"]()
    assert "needs Python 3.11 or newer" in str(ended.value)
    assert "\n" not in str(ended.value)


def test_bootstrap_parses_on_any_python_3() -> None:
    compile((ROOT / "scripts" / "bootstrap.py").read_text(), "bootstrap.py", "exec", dont_inherit=True)
    import ast

    ast.parse((ROOT / "scripts" / "bootstrap.py").read_text(), feature_version=(3, 7))


def test_make_alone_lists_the_commands() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("setup", "demo", "test", "lint", "bench", "clean"):
        assert f"make {command} " in listed


@pytest.mark.parametrize(("option", "what"), [("--port", "web"), ("--grpc-port", "gRPC")])
def test_a_taken_port_is_named(option: str, what: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = {"--port": "0", "--grpc-port": "0", option: port}
        arguments = [part for pair in other.items() for part in pair]
        ended = fedui("demo", "--no-browser", "--exit", "--data-dir", str(tmp_path / "demo"), *arguments)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert f"Port {port} for {what}" in ended.stderr
    assert option in ended.stderr


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = fedui("demo", "--exit", "--data-dir", str(tmp_path / "file" / "demo"))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "--data-dir" in ended.stderr


def test_the_demo_destroys_no_folder_but_an_earlier_demos(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    ended = fedui("demo", "--exit", "--data-dir", str(tmp_path))
    assert ended.returncode == 2
    assert "no earlier demo" in ended.stderr
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_folder_serves_one_server_at_a_time(command: str, tmp_path: Path) -> None:
    (tmp_path / ".fedui-demo").touch()
    (tmp_path / "model").touch()
    with claimed(tmp_path):
        ended = fedui(command, "--data-dir", str(tmp_path))
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "already" in ended.stderr
    assert (tmp_path / "model").exists()


def test_a_database_that_does_not_answer_is_named(tmp_path: Path) -> None:
    away = "postgres://fedui@127.0.0.1:1/fedui"
    ended = fedui("up", "--port", "0", "--grpc-port", "0", "--data-dir", str(tmp_path), DATABASE_URL=away)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "DATABASE_URL" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--port", "70000"], {}), ([], {"FEDUI_GRPC_BIND": "anywhere"})]
)
def test_a_port_that_is_none_is_refused(arguments: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    ended = fedui("up", *arguments, "--data-dir", str(tmp_path), **environment)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
