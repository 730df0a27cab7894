"""The lines that install an agent, and what they fetch."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from io import BytesIO
from pathlib import Path

import pytest
from django.test import Client as Browser
from pytest_django import Settings

from fedui.clients import install
from fedui.clients.agent_wheel import agent_wheel

TOKEN = f"fle_{'a' * 10}.{'s' * 43}.{'f' * 43}"

PYTHON = """\
#!/bin/sh
# A Python that is new enough, makes environments and has a pip that notes what it was asked for.
case "$1 $2" in
  "-c import"*) exit 0 ;;
  "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; cp "$NOTES/fedagent" "$3/bin/fedagent" ;;
  "-m pip") shift 2; for a; do printf '%s\\n' "$a"; done >> "$NOTES/pip" ;;
esac
"""
FEDAGENT = """\
#!/bin/sh
echo "$* token=${FEDAGENT_TOKEN:-}" >> "$NOTES/fedagent.log"
case "$1" in
  status) [ -f "$NOTES/enrolled" ] ;;
  enroll) touch "$NOTES/enrolled" ;;
esac
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A machine with a Python, and what its programs were asked to do."""
    for name, script in (("python3", PYTHON), ("fedagent", FEDAGENT)):
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run_script(notes: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{notes}:{os.environ['PATH']}", "HOME": str(notes), "NOTES": str(notes), **variables}
    script = install.shell_script()
    return subprocess.run(["sh"], input=script, env=environment, capture_output=True, text=True, check=False)


def test_the_script_installs_enrols_and_runs(notes: Path, settings: Settings) -> None:
    settings.PUBLIC_URL = "https://fedui.example.org"
    done = run_script(notes, FEDAGENT_TOKEN=TOKEN, FEDAGENT_NAME="north 1")
    assert done.returncode == 0, done.stderr
    asked = (notes / "pip").read_text().splitlines()
    wheel = agent_wheel()
    url = f"https://fedui.example.org/install/{wheel.filename}#sha256={wheel.sha256}"
    assert asked[-1] == f"fedui-agent[agent] @ {url}"
    assert (notes / "fedagent.log").read_text().splitlines() == [
        f"status token={TOKEN}",
        f"enroll https://fedui.example.org --name north 1 token={TOKEN}",
        "run token=",
    ]


def test_run_again_it_updates_and_enrols_nobody(notes: Path) -> None:
    run_script(notes, FEDAGENT_TOKEN=TOKEN, FEDAGENT_RUN="no")
    (notes / "fedagent.log").unlink()
    assert run_script(notes).returncode == 0
    assert (notes / "fedagent.log").read_text().splitlines() == ["status token=", "run token="]


def test_a_script_that_was_cut_off_does_nothing(notes: Path) -> None:
    script = install.shell_script()
    environment = {"PATH": f"{notes}:{os.environ['PATH']}", "HOME": str(notes), "NOTES": str(notes)}
    for share in (0.3, 0.6, 0.95):
        part = script[: int(len(script) * share)]
        subprocess.run(["sh"], input=part, env=environment, capture_output=True, text=True, check=False)
    assert not (notes / "pip").exists()


def test_a_machine_without_python_is_told_so(notes: Path) -> None:
    (notes / "python3").write_text("#!/bin/sh\nexit 1\n")
    environment = {"PATH": str(notes), "HOME": str(notes), "NOTES": str(notes)}
    script = install.shell_script()
    done = subprocess.run(["/bin/sh"], input=script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def test_operators_choose_package_and_index(settings: Settings) -> None:
    settings.AGENT_PACKAGE, settings.AGENT_INDEX_URL = "our-agent[gpu]==1.2", "https://packages.example.org/simple"
    for script in (install.shell_script(), install.powershell_script()):
        assert "our-agent[gpu]==1.2" in script
        assert "--index-url" in script
        assert "https://packages.example.org/simple" in script
        assert "@PACKAGE@" not in script
        assert "@URL@" not in script


def test_what_operators_set_is_quoted(notes: Path, settings: Settings) -> None:
    settings.AGENT_PACKAGE = "it's; touch pwned"
    run_script(notes, FEDAGENT_TOKEN=TOKEN, FEDAGENT_RUN="no")
    assert (notes / "pip").read_text().splitlines()[-1] == "it's; touch pwned"
    assert "'it''s; touch pwned'" in install.powershell_script()


def test_the_scripts_and_the_wheel_are_public(db: None) -> None:
    assert "set -eu" in Browser().get("/install.sh").content.decode()
    assert "Install-FedAgent" in Browser().get("/install.ps1").content.decode()
    wheel = agent_wheel()
    content = Browser().get(f"/install/{wheel.filename}").content
    assert hashlib.sha256(content).hexdigest() == wheel.sha256
    assert Browser().get("/install/other.whl").status_code == 404


def test_the_wheel_holds_the_agent_and_nothing_of_the_server(tmp_path: Path) -> None:
    wheel = agent_wheel()
    with zipfile.ZipFile(BytesIO(wheel.content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        info = f"fedui_agent-{distribution('fedui').version}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    assert {name.split("/")[0] for name in names} == {"client_agent", "protos", info}
    assert "client_agent/apps/data/NOTICE.txt" in names
    assert "Requires-Dist: numpy" in metadata
    assert 'Requires-Dist: typer<0.29,>=0.20; extra == "agent"' in metadata
    assert "django" not in metadata
    assert "fedagent = client_agent.cli:main" in entry_points
    assert "supervisor" not in entry_points


def test_the_agent_in_the_wheel_starts(tmp_path: Path) -> None:
    wheel = agent_wheel()
    file = tmp_path / wheel.filename
    file.write_bytes(wheel.content)
    code = f"import sys; sys.path.insert(0, {str(file)!r}); import client_agent.cli as c; print(c.__file__); c.cli(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert str(file) in done.stdout
    assert "enroll" in done.stdout


def test_each_line_says_where_and_how(settings: Settings) -> None:
    settings.PUBLIC_URL, settings.AGENT_IMAGE = "https://fedui.example.org", "images.example.org/python:3.13"
    shell, powershell, docker, own = install.lines(TOKEN)
    assert shell.command == f"curl -fsSL https://fedui.example.org/install.sh | FEDAGENT_TOKEN={TOKEN} sh"
    assert "irm 'https://fedui.example.org/install.ps1' | iex" in powershell.command
    words = shlex.split(docker.command)
    assert words[-4:-1] == ["images.example.org/python:3.13", "sh", "-c"]
    assert shlex.split(words[-1])[:2] == ["python3", "-c"]
    compile(shlex.split(words[-1])[2], "docker", "exec")
    assert own.command.startswith("fedagent enroll https://fedui.example.org")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:8000", "on this machine alone"),
        ("http://fedui.example.org", "plain HTTP"),
        ("https://fedui.example.org", ""),
    ],
)
def test_a_server_that_sites_can_not_reach_says_so(settings: Settings, url: str, says: str) -> None:
    settings.PUBLIC_URL = url
    assert says in install.warning()
    assert bool(install.warning()) == bool(says)
