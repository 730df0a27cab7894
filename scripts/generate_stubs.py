"""Generates the Python stubs of protos/ into the folder given."""

import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(target: Path) -> None:
    """Raises `SystemExit` if protoc fails."""
    bin_folder = Path(sys.executable).parent
    sources = sorted(str(path) for path in (ROOT / "protos").rglob("*.proto"))
    options = [
        f"--proto_path={ROOT}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
    ]
    if code := protoc.main(["protoc", *options, *sources]):
        raise SystemExit(code)


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve())
