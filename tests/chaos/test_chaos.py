"""A few faults of the suite, as many as CI has time for. `make chaos` does it all."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(480)]


def test_a_run_survives_what_is_done_to_it() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--single", "5", "--double", "1", "--seed", "7"]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in outcome.stdout.splitlines() if line.startswith("{")]
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert [line["name"] for line in lines if line.get("ok")][:1] == ["chaos_runs"]
