"""`make setup` on machines that lack something: one line each, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A tree in which nothing has been set up."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/bootstrap.py", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


def bootstrap(checkout: Path, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the script of `checkout`, after `prelude`, which makes the machine look poor."""
    script = checkout / "scripts" / "bootstrap.py"
    program = f"import sys, os, subprocess, runpy\n{prelude}\nrunpy.run_path({str(script)!r}, run_name='__main__')"
    environment = {name: value for name, value in os.environ.items() if name != "FEDUI_VENV"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line that was said."""
    assert result.returncode != 0
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_a_tree_that_may_not_be_written_to(checkout: Path) -> None:
    line = complaint(bootstrap(checkout, "os.access = lambda *_: False"))
    assert str(checkout) in line


def test_without_the_venv_module(checkout: Path) -> None:
    poor = "subprocess.run = lambda *_, **__: subprocess.CompletedProcess([], 1, '', 'ensurepip is not available')"
    assert "python3-venv" in complaint(bootstrap(checkout, poor))


def test_when_all_is_there_it_does_nothing(checkout: Path) -> None:
    """Or `make` would be slow at everything."""
    (checkout / ".venv").mkdir()
    stamp = checkout / ".venv" / "fedui-stamp"
    find_fingerprint = (
        f"import runpy; print(runpy.run_path({str(checkout / 'scripts/bootstrap.py')!r})['fingerprint']())"
    )
    found = subprocess.run([sys.executable, "-c", find_fingerprint], capture_output=True, text=True, check=True)
    stamp.write_text(found.stdout.strip())
    begun = time.monotonic()
    result = bootstrap(checkout)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert time.monotonic() - begun < 3
    assert [path.name for path in (checkout / ".venv").iterdir()] == ["fedui-stamp"]
