"""What each process loads. A training framework in a server would cost seconds at start and 130 to 230 MB."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
HEAVY = {"torch", "sklearn", "scipy", "plotly", "pandas", "matplotlib", "xgboost"}
SERVER = {"django", "celery", "channels", "redis"}


def loaded_by(program: str, folder: Path) -> set[str]:
    code = f"{program}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    environment = {
        "PATH": os.environ["PATH"],
        "FEDUI_DATA_DIR": str(folder),
        "DJANGO_SETTINGS_MODULE": "fedui.settings",
    }
    command = [sys.executable, "-c", code]
    return set(
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize("module", ["fedui.asgi", "fedui.worker", "fedui.celery"])
def test_servers_load_no_training_framework(module: str, tmp_path: Path) -> None:
    assert not loaded_by(f"import django; django.setup(); import {module}", tmp_path) & HEAVY


def test_the_web_process_does_without_grpc(tmp_path: Path) -> None:
    assert "grpc" not in loaded_by("import django; django.setup(); import fedui.asgi, fedui.urls", tmp_path)


def test_the_agent_loads_nothing_of_the_server(tmp_path: Path) -> None:
    assert not loaded_by("import client_agent.agent, client_agent.apps.digits_numpy", tmp_path) & (HEAVY | SERVER)
