"""What is generated and committed is current."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "scripts/generate_stubs.py", str(tmp_path)], cwd=ROOT, check=True)
    generated = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*_pb2*")}
    committed = {
        path.relative_to(ROOT): path.read_text() for path in (ROOT / "protos").rglob("*_pb2*") if path.suffix != ".pyc"
    }
    assert generated == committed, "make protos"
