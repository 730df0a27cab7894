"""Rounds that flwr 1.42 has computed, recomputed; and the program that does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.replay import TOLERANCE, BadCase, replay

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "vectors"
CASES = json.loads((VECTORS / "cases.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_vectors(case: dict[str, object]) -> None:
    assert replay(case, VECTORS) <= TOLERANCE


def run(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aggregator.replay", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_program_says_one_line_a_case() -> None:
    done = run(VECTORS / "cases.json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(lines)) == (0, len(CASES))
    assert all(line["ok"] and line["max_rel_error"] <= TOLERANCE for line in lines)


def test_a_difference_is_found(tmp_path: Path) -> None:
    """The momentum case under another momentum."""
    case = next(case for case in CASES if case["name"] == "fedavgm")
    wrong = {**case, "params": {**case["params"], "server_momentum": 0.8}, "file": str(VECTORS / case["file"])}
    (tmp_path / "cases.json").write_text(json.dumps({"cases": [wrong]}))
    done = run(tmp_path / "cases.json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "fedmagic"}, "no algorithm 'fedmagic'"),
        ({"file": "missing.npz"}, "can't be read"),
        ({"algorithm": "krum", "params": {}}, "its params don't fit krum"),
    ],
)
def test_a_case_that_cannot_be_replayed_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(BadCase, match=message):
        replay({**CASES[0], **change}, VECTORS)


@pytest.mark.parametrize("content", ["{", "[]", '{"cases": 3}'])
def test_a_file_of_something_else_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(content)
    done = run(tmp_path / "cases.json")
    assert done.returncode == 1
    assert done.stderr.startswith("replay: ")
    assert done.stderr.count("\n") == 1
