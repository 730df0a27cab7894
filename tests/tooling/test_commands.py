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

ROOT = Path(__file__).parent.parent.parent
FEDUI = Path(sys.executable).parent / "fedui"


def bootstrap() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "bootstrap.py"))


def fedui(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FEDUI_", "DJANGO_"))}
    return subprocess.run([FEDUI, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)


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
