"""Flower 1.42 beside the agent, in an environment of its own, as a data owner would have it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

FLOWER = "flwr==1.42.0"
ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "var" / "flower"
UV = Path(sys.executable).parent / "uv"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
    "PYTHONPATH": str(ROOT),
    "FLWR_TELEMETRY_ENABLED": "0",
    "GRPC_VERBOSITY": "NONE",
}


def python_with_flower() -> Path:
    """Made at the first call, and kept under var/. Raises `subprocess.CalledProcessError` where it can't be made."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = FOLDER / _fingerprint()
        python = wanted / "bin" / "python"
        if not (wanted / "complete").exists():
            _run("venv", "--quiet", "--clear", "--python", sys.executable, str(wanted))
            extras = ["--extra", "agent", "--extra", "flower", "--requirement", str(ROOT / "pyproject.toml")]
            _run("pip", "install", "--quiet", "--python", str(python), *extras, FLOWER)
            subprocess.run(
                [str(python), "-c", "import flwr.client, flwr.clientapp"], env=ENVIRONMENT, check=True
            )  # compiles
            (wanted / "complete").touch()
    return python


def _fingerprint() -> str:
    """Of all that decides what is installed, and where."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    parts = [FLOWER, sys.version, str(ROOT), *project["dependencies"], *extras["agent"], *extras["flower"]]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _run(*arguments: str) -> None:
    subprocess.run([str(UV), *arguments], check=True)
