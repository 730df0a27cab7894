"""What deploy/ starts is what the agent understands, and none of it opens a port."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from client_agent.cli import cli

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNIT = (DEPLOY / "fedagent.service").read_text()
IMAGE = (DEPLOY / "agent.Dockerfile").read_text()


def test_the_unit_starts_the_agent_with_options_that_it_has() -> None:
    (start,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    program, *arguments = shlex.split(start)
    assert program.endswith("/fedagent")
    understood = CliRunner().invoke(cli, [*arguments, "--help"])
    assert understood.exit_code == 0, understood.output
    assert "Listen" not in UNIT


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "fedagent.service"
    unit.write_text(UNIT.replace("/opt/fedagent/bin/fedagent", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "fedagent" in line]) == (0, [])


def test_the_image_publishes_no_port_and_runs_as_no_root() -> None:
    assert not re.search(r"^EXPOSE", IMAGE, re.MULTILINE)
    assert re.search(r"^USER fedagent$", IMAGE, re.MULTILINE)
    compose = yaml.safe_load((DEPLOY / "agent.compose.yaml").read_text())
    agent = compose["services"]["agent"]
    assert "ports" not in agent
    assert agent["read_only"]
    assert (DEPLOY / agent["build"]["context"] / agent["build"]["dockerfile"]).is_file()


def test_what_the_image_copies_is_there() -> None:
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", IMAGE, re.MULTILINE):
        for source in sources.split():
            assert (DEPLOY.parent / source).exists(), source
