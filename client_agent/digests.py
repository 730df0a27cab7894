"""What an owner can hold an app's code to."""

from __future__ import annotations

import hashlib
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from client_agent.errors import BrokenApp


def digest_of(module: str) -> str:
    """SHA-256 over the code beside a module: every importable file of the package that it is in, below too, or of itself alone.

    Of each file, in the order of their paths: path, size and content. Data files and byte code are no part of it.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_files(module).items()):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _files(module: str) -> dict[str, Path]:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise BrokenApp(f"Module {module!r} has no file whose SHA-256 could be taken.")
    if not spec.parent:
        return {Path(spec.origin).name: Path(spec.origin)}
    suffixes = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
    folder = Path(spec.origin).parent
    found = (path for path in folder.rglob("*") if path.name.endswith(suffixes) and path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}
